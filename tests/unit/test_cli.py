import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hms_ray.cli.main import main
from hms_ray.errors import ConfigError
from tests.competition_folder import write_competition_folder

# What a command needs beyond the standard library must wait until it is known.
PROBE = """
import sys
sys.argv = ["hms-ray", {words}]
from hms_ray.cli.main import main
try:
    main()
except SystemExit:
    pass
print(sorted({{name.split(".")[0] for name in sys.modules}} & {{
    "numpy", "pandas", "torch", "ray", "optuna", "pydantic", "pyarrow", "sklearn", "timm"}}))
"""


@pytest.mark.parametrize("words", ["'--help'", "'sweep', '--help'"])
def test_help_imports_nothing_heavy(words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(words=words)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.startswith("usage: hms-ray")
    assert done.stdout.splitlines()[-1] == "[]"


def test_check_answers_with_its_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_competition_folder(tmp_path / "data")
    assert main(["check", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["faults"] == []
    next((folder / "train_eegs").glob("*.parquet")).unlink()
    assert main(["check", str(folder)]) == 1
    assert "train_eegs/" in capsys.readouterr().out


def test_check_of_a_label_table_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_competition_folder(tmp_path / "data", n_patients=2, eegs=False)
    shutil.rmtree(folder / "train_spectrograms")
    assert main(["check", str(folder)]) == 1
    assert main(["check", str(folder), "--table-only"]) == 0
    table = shutil.move(folder / "train.csv", tmp_path / "labels.csv")
    capsys.readouterr()
    assert main(["check", "--labels", str(table)]) == 0
    assert capsys.readouterr().out.startswith(f"Label table {table}\n")
    assert main(["check", str(folder), "--labels", str(table), "--table-only"]) == 0
    capsys.readouterr()
    assert main(["check", str(folder), "--labels", str(table), "--no-signals", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["folder"], said["table"]) == (str(folder), str(table))
    assert said["counts"]["eegs"] == said["counts"]["missing_eeg_files"] == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check"], "hms-ray check: check needs a folder or a table. Name DIR or --labels FILE."),
        (["check", "--table-only"], "check needs a folder or a table"),
        (["check", "nowhere"], "hms-ray check: a competition folder must exist, in nowhere"),
        (["pack", "nowhere"], "hms-ray pack: "),
        (["train", "none.yaml", "--data", "x"], "a configuration file must be readable"),
        (["sweep", "none.yaml", "--data", "x"], "a configuration file must be readable"),
        (["blend", "no-such-study"], "no-such-study"),
        (["leaderboard", "no-such-study"], "no-such-study"),
        (["floor", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    text = capsys.readouterr().err
    assert said in text
    assert "Traceback" not in text
    assert text.count("\n") == 1


def test_what_the_system_refuses_is_one_line_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert main(["simulate", "--out", str(file / "x"), "--patients", "1"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("hms-ray simulate: ")
    assert str(file) in text
    assert text.count("\n") == 1


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        main(["train", str(tmp_path / "none.yaml"), "--data", "x", "--debug"])


@pytest.mark.parametrize(
    "words", [[], ["swep"], ["sweep", "a.yaml"], ["blend", "a", "--rows", "x"]]
)
def test_unknown_words_are_status_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2


def test_local_training_never_imports_ray(tmp_path: Path) -> None:
    data = write_competition_folder(tmp_path / "data", eegs_per_patient=1)
    space = tmp_path / "tiny.yaml"
    space.write_text(
        """
experiment:
  name: tiny
  data: {n_folds: 2}
  input: {downsample: [4, 4]}
  model: {name: test_efficientnet, pretrained: false, drop_path: 0.0}
  training: {stages: [{epochs: 1}]}
""",
        encoding="utf-8",
    )
    words = ["train", str(space), "--data", str(data), "--local", "--fold", "0", "--set", "name=x"]
    words += ["--results", str(tmp_path / "results")]
    program = f"""
import sys
from hms_ray.cli.main import main
status = main({words!r})
print("ray imported" if "ray" in sys.modules else "ray not imported", status)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ray not imported 0"
    assert "KL all" in done.stdout
    assert (tmp_path / "results" / "local" / "x" / "fold_0").is_dir()


def test_a_label_table_is_simulated_as_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--profile", "competition", "--control", "permuted_votes", "--signals", "0"]
    out = tmp_path / "labels"
    told = ["simulate", "--out", str(out), "--patients", "2", "--processes", "1", *words]
    assert main(told) == 0
    assert "labels of 2 patients, no recordings (see --signals)" in capsys.readouterr().out
    manifest = json.loads((out / "simulation.json").read_text(encoding="utf-8"))
    assert manifest["profile"] == "competition"
    assert manifest["controls"] == ["permuted_votes"]
    assert main(["floor", str(out)]) == 0
    assert "drawn votes of labels.csv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "patients", "signals", "said"),
    [
        ([], 100, 100, "simulated data of 100 patients: "),
        (["--patients", "7"], 7, 7, "simulated data of 7 patients: "),
        (
            ["--patients", "7", "--signals", "2"],
            *(7, 2, "simulated labels of 7 patients, recordings of 2: "),
        ),
        (
            ["--profile", "competition"],
            *(1_950, 0, "simulated labels of 1,950 patients, no recordings (see --signals): "),
        ),
        (
            ["--profile", "competition", "--signals", "5"],
            *(1_950, 5, "simulated labels of 1,950 patients, recordings of 5: "),
        ),
        (
            ["--profile", "competition", "--patients", "9"],
            *(9, 0, "simulated labels of 9 patients, no recordings (see --signals): "),
        ),
    ],
)
def test_profiles_have_their_own_numbers_of_patients(
    words: list[str],
    patients: int,
    signals: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr(
        "hms_ray.simulate.folder.simulate_folder", lambda *_, **numbers: asked.update(numbers)
    )
    assert main(["simulate", "--out", "somewhere", *words]) == 0
    assert (asked["n_patients"], asked["n_signals"]) == (patients, signals)
    assert f"{said}somewhere\n" in capsys.readouterr().out


def test_no_process_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["simulate", "--out", str(tmp_path / "data"), "--patients", "1", "--processes", "0"]
    assert main(told) == 2
    assert "the number of processes must be at least 1, got 0" in capsys.readouterr().err
