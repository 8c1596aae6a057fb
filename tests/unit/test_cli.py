import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hms_ray import __version__
from hms_ray.cli.main import main
from hms_ray.errors import ConfigError
from tests.competition_folder import write_competition_folder
from tests.tensorboard_reading import scalars

# What a command needs beyond the standard library must wait until it is known.
PROBE = """
import sys
sys.argv = ["hms-ray", {words}]
from hms_ray import __version__
from hms_ray.cli.main import main
assert main() == 0
print(sorted({{name.split(".")[0] for name in sys.modules}} & {{
    "numpy", "pandas", "torch", "ray", "optuna", "pyarrow", "sklearn", "timm"}}))
"""


@pytest.mark.parametrize("words", ["", "'--help'", "'sweep', '--help'", "'blend', '--help'"])
def test_help_imports_nothing_heavy(words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(words=words)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert "Usage: hms-ray" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "shown", "also"),
    [
        (
            ["leaderboard", "one"],
            "Best trial: ",
            {"scipy.stats", "scipy.optimize", "hms_ray.dataset"},
        ),
        (["show", "one"], "best trial", set()),
        (["studies"], "one", set()),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_commands_that_show_import_no_more_than_they_need(
    results: Path, words: list[str], shown: str, also: set[str]
) -> None:
    """What is named here takes longer to import than all else that the commands do."""
    heavy = {"torch", "timm", "ray", "optuna", "sklearn", "plotly", "matplotlib", "tensorboard"}
    program = (
        "import sys\nfrom hms_ray.cli.main import main\n"
        f"assert main({[*words, '--results', str(results)]!r}) == 0\n"
        f"print(sorted({heavy | also!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert shown in done.stdout
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
    found = json.loads(capsys.readouterr().out)
    assert (found["folder"], found["table"]) == (str(folder), str(table))
    assert found["counts"]["eegs"] == found["counts"]["missing_eeg_files"] == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check"], "hms-ray check: check needs a folder or a table. Name DIR or --labels FILE."),
        (["check", "--table-only"], "check needs a folder or a table"),
        (["check", "nowhere"], "hms-ray check: a competition folder must exist, in nowhere"),
        (["pack", "nowhere"], "hms-ray pack: "),
        (["train", "none.yaml", "--data", "x"], "a configuration file must exist, or be shipped"),
        (["sweep", "none.yaml", "--data", "x"], "a configuration file must exist, or be shipped"),
        (["blend", "no-such-study"], "no-such-study"),
        (["leaderboard", "no-such-study"], "no-such-study"),
        (["oracle", "nowhere"], "nowhere"),
        (["swep", "a.yaml"], "hms-ray: No such command 'swep'. Did you mean 'sweep'?"),
        (["sweep", "a.yaml"], "hms-ray sweep: Missing option '--data'. See: hms-ray sweep --help"),
        (["sweep", "a", "--dat", "x"], "No such option: --dat. Did you mean --data?"),
        (["sweep", "a", "--data"], "hms-ray sweep: Option '--data' requires an argument."),
        (["check", "--jsno"], "Did you mean --json?"),
        (["simulate", "--out", "a", "--patients", "x"], "--patients"),
        (["sweep", "a", "--log-level", "LOUD"], "'LOUD' is not one of"),
        (["simulate", "--out", "a", "--processes", "0"], "processes must be at least 1, got 0"),
        (["simulate", "--out", "file/a", "--patients", "1"], "hms-ray simulate: Not a directory"),
        (["ladder", "poll"], "hms-ray ladder: No such command 'poll'. Did you mean 'pool'?"),
        (["ladder", "--scale", "small", "pool", "a"], "no options of ladder, got --scale"),
        (["ladder", "--scale", "smal"], "in the folder of the manifest, got smal (did you mean"),
        (["floor", "nowhere"], "hms-ray: floor was renamed. Use hms-ray oracle."),
        (["forest", "a"], "hms-ray: forest was renamed. Use hms-ray ladder pool."),
        (["predict", "a"], "hms-ray: predict was renamed. Use hms-ray submit."),
        (["pack", "nowhere", "--for", "x"], "hms-ray pack: --for was renamed. Use --space."),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error_line: Callable[..., str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert message in error_line(*words)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    words = ["train", str(tmp_path / "none.yaml"), "--data", "x"]
    for debug in ([*words, "--debug"], ["--debug", *words]):
        with pytest.raises(ConfigError):
            main(debug)


@pytest.mark.parametrize(
    ("words", "end"),
    [
        (["sweep", "a.yaml", "--data", "x"], "hms-ray sweep: stopped; the same command resumes."),
        (["pack", "x"], "hms-ray pack: stopped; the same command resumes."),
        (["simulate", "--out", "x"], "hms-ray simulate: stopped; the same command starts over."),
        (["check", "x"], "hms-ray check: stopped."),
        (["ladder", "pool", "x"], "hms-ray ladder pool: stopped."),
    ],
)
def test_ctrl_c_promises_to_resume_only_if_that_is_true(
    words: list[str],
    end: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for name in (
        *("config.shipped.find_space", "dataset.pack_command.pack_folder"),
        *("simulate.folder.simulate_folder", "competition.check.check_folder"),
        "ladder.multi_seed.combine",
    ):
        monkeypatch.setattr(f"hms_ray.{name}", stop)
    assert main(words) == 130
    assert capsys.readouterr().err.splitlines()[-1] == end


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_simulation_and_its_workers_without_a_traceback(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    words = ["simulate", "--out", str(tmp_path / "data"), "--patients", "200", "--processes", "2"]
    command = subprocess.Popen(
        [sys.executable, "-m", "hms_ray", *words],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while command.poll() is None and not any(tmp_path.iterdir()):
        time.sleep(0.01)
    time.sleep(0.3)
    # As a terminal does: the signal goes to the whole group.
    os.killpg(command.pid, number)
    _, text = command.communicate(timeout=120)
    assert command.returncode == status, text
    assert text.splitlines()[-1] == "hms-ray simulate: stopped; the same command starts over."
    assert "Traceback" not in text
    assert not any(tmp_path.iterdir())


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hms-ray {__version__}\n"


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
from hms_ray import __version__
from hms_ray.cli.main import main
status = main({words!r})
print("ray imported" if "ray" in sys.modules else "ray not imported", status)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ray not imported 0"
    assert "KL all" in done.stdout
    found = scalars(tmp_path / "results" / "local" / "x")
    assert len(found["folds/0/KL all"]) == len(found["1 objective, mean over folds/KL >=10"]) == 1
    assert len(found["result/KL all"]) == 1
    assert all(value > 0 for _, _, value in found["folds/0/gradient norm"])


def test_a_label_table_is_simulated_with_its_profile_and_control(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--profile", "competition", "--control", "permuted_votes", "--signals", "0"]
    out = tmp_path / "labels"
    start = ["simulate", "--out", str(out), "--patients", "2", "--processes", "1"]
    assert main([*start, *words]) == 0
    assert "labels of 2 patients, no recordings (see --signals)" in capsys.readouterr().out
    manifest = json.loads((out / "simulation.json").read_text(encoding="utf-8"))
    assert manifest["profile"] == "competition"
    assert manifest["controls"] == ["permuted_votes"]
    assert main(["oracle", str(out)]) == 0
    assert "votes of labels.csv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "patients", "signals", "made"),
    [
        ("", 100, 100, "data of 100 patients"),
        ("--patients 7", 7, 7, "data of 7 patients"),
        ("--patients 7 --signals 2", 7, 2, "labels of 7 patients, recordings of 2"),
        ("--profile competition", 1_950, 0, "labels of 1,950 patients, no recordings"),
        ("--profile competition --signals 5", 1_950, 5, "1,950 patients, recordings of 5"),
        ("--profile competition --patients 9", 9, 0, "labels of 9 patients, no recordings"),
    ],
)
def test_profiles_have_their_own_numbers_of_patients(
    words: str,
    patients: int,
    signals: int,
    made: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr(
        "hms_ray.simulate.folder.simulate_folder", lambda *_, **numbers: given.update(numbers)
    )
    assert main(["simulate", "--out", "somewhere", *words.split()]) == 0
    assert (given["n_patients"], given["n_signals"]) == (patients, signals)
    first = capsys.readouterr().out.splitlines()[0]
    assert made in first
    assert first.endswith(": somewhere")
