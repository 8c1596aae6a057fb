"""Exports: complete, unchanged, and the same predictions as those of the results folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from hms_ray.blend.export import ExportOptions, export
from hms_ray.blend.exported import read_export
from hms_ray.blend.submit import submit
from hms_ray.cli.main import main
from hms_ray.competition.schema import CLASSES, PROBABILITY_COLUMNS
from hms_ray.errors import ConfigError, ModelError, PredictionError, StudyError
from hms_ray.predict.rate import RunTimes
from hms_ray.predict.submit_trial import SubmitOptions
from hms_ray.predict.trial import read_models
from hms_ray.storage.hashing import file_sha256
from hms_ray.train.checkpoint import export_weights, load_weights, save_weights
from tests.refused import refusal
from tests.stored_blend import of_study, write_blend
from tests.trained_study import TrainedStudy, train_study, write_test_set

pytestmark = pytest.mark.usefixtures("one_process")

PROBABILITIES = list(PROBABILITY_COLUMNS)
FLOAT16_DIFFERENCE = 1e-4
"""Largest absolute difference of a probability, as ``results/README.md`` states it."""


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[TrainedStudy]:
    """Two studies of one results folder, of different sources."""
    place = tmp_path_factory.mktemp("studies")
    return [train_study(place, name) for name in ("kaggle", "eeg")]


@pytest.fixture(scope="module")
def results(studies: list[TrainedStudy]) -> Path:
    """Their results folder, with a blend in which one of three members has weight 0."""
    folder = studies[0].results
    members = [of_study(studies[0]), {"name": "gone", "file": "oof.csv"}, of_study(studies[1])]
    weights = {"form": "mean", "weights": [0.3, 0.0, 0.7], "facts": {}}
    (folder / "blend").mkdir()
    write_blend(folder / "blend" / "blend.json", members, fitted=weights)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_test_set(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="module")
def exported(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The blend's export, without wheels; only read."""
    out = tmp_path_factory.mktemp("export") / "blend"
    export("blend", ExportOptions(out=out, results=results, wheel=False))
    return out


@pytest.fixture
def own(exported: Path, tmp_path: Path) -> Path:
    """A copy of the export that a test may damage."""
    return Path(shutil.copytree(exported, tmp_path / "own"))


def submitted(target: object, data: Path, results: Path, out: Path) -> pd.DataFrame:
    submit(str(target), SubmitOptions(data_dir=data, results=results, out=out, device="cpu"))
    return pd.read_parquet(out)


@pytest.mark.parametrize("target", ["kaggle", "eeg/0", "blend", "blend/blend.json"])
def test_an_export_predicts_the_same_bits(
    results: Path, data: Path, tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results)
    expected = submitted(target, data, results, tmp_path / "a.parquet")
    out = tmp_path / "export"
    export(target, ExportOptions(out=out, results=results, wheel=False))
    found = submitted(out, data, tmp_path / "none", tmp_path / "b.parquet")
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert expected[PROBABILITIES].std(axis=0).max() > 1e-4  # equal rows would prove little


def test_float16_halves_the_weights_and_changes_little(
    results: Path, data: Path, tmp_path: Path, exported: Path
) -> None:
    out = tmp_path / "half"
    export("blend", ExportOptions(out=out, results=results, dtype="float16", wheel=False))
    for file in out.glob("models/*/*.safetensors"):
        for name, value in load_file(file).items():
            expected = torch.float16 if value.is_floating_point() and value.ndim > 1 else None
            stored = load_file(exported / file.relative_to(out))[name]
            assert value.dtype == (expected or stored.dtype)
    full = submitted(exported, data, tmp_path, tmp_path / "a.parquet")[PROBABILITIES]
    half = submitted(out, data, tmp_path, tmp_path / "b.parquet")[PROBABILITIES]
    assert 0 < np.abs(half - full).to_numpy().max() < FLOAT16_DIFFERENCE


def test_float16_keeps_variances_and_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    source, target = tmp_path / "a.pt", tmp_path / "a.safetensors"
    weights = {"variance": torch.tensor([1e6]), "kernel": torch.full((1, 2), 2.5)}
    save_weights(source, weights)
    export_weights(source, target, half=True)
    found = load_weights(target)
    assert torch.equal(found["variance"], weights["variance"])
    assert found["kernel"].dtype == torch.float16
    save_weights(source, {"kernel": torch.full((1, 2), 7e4)})
    with refusal(ModelError, "float16", got="7e+04 in kernel", where="a.pt", fix="--dtype"):
        export_weights(source, target, half=True)


def test_an_export_describes_its_files(results: Path, exported: Path) -> None:
    about = json.loads((exported / "export.json").read_text())
    files = {p.relative_to(exported).as_posix(): p for p in exported.rglob("*") if p.is_file()}
    assert about["files"] == {
        name: file_sha256(file) for name, file in files.items() if name != "export.json"
    }
    assert about["classes"] == list(CLASSES)
    assert {"hms_ray", "torch", "timm"} <= about["versions"].keys()
    assert [member["name"] for member in about["members"]] == ["kaggle 0000", "eeg 0000"]
    read = read_export(exported / "export.json")
    for models in read.models:
        name = models.name.split()[0]
        keys = {int(fold): key for fold, key in _keys(results, name).items()}
        stored = read_models("x", keys, results)
        assert models.experiment == stored.experiment
        for fold, model in models.folds.items():
            assert model.record["normalisation"] == stored.folds[fold].record["normalisation"]
    assert read.blend is not None
    assert read.notes == ()
    page = (exported / "README.md").read_text()
    assert "hms-ray submit /kaggle/input/blend --data" in page
    assert "`typer>=" in page
    assert "`ray" not in page
    for file in exported.rglob("*"):
        assert file.is_dir() or str(results.parent).encode() not in file.read_bytes(), (
            "a local path"
        )


def _keys(results: Path, study: str) -> Any:
    return json.loads((results / study / "trials" / "0000" / "result.json").read_text())["keys"]


def test_only_the_models_and_the_blend_are_needed_to_submit(
    own: Path, data: Path, tmp_path: Path
) -> None:
    (own / "README.md").unlink()
    submitted(own, data, tmp_path, tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "name", ["blend.json", "models/00/experiment.yaml", "models/01/fold_1.safetensors"]
)
def test_a_damaged_or_missing_file_is_named(
    own: Path, exported: Path, data: Path, tmp_path: Path, name: str
) -> None:
    file, expected = own / name, file_sha256(exported / name)
    file.write_bytes(file.read_bytes() + b" ")
    fix = "hms-ray export"
    for got in (f"SHA-256 {file_sha256(file)} instead of SHA-256 {expected}", "no file instead"):
        with refusal(StudyError, "complete and unchanged", got=got, where=str(file), fix=fix):
            submitted(own, data, tmp_path, tmp_path / "a.csv")
        file.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("change", "rule", "got"),
    [
        ({"format": 2}, "format 1", "format 2"),
        ({"classes": list(CLASSES[::-1])}, "the classes Seizure, LPD", "Other"),
        ({"files": None}, "must be readable", "TypeError"),
        ({"members": [{}]}, "must be readable", "KeyError"),
    ],
)
def test_another_or_damaged_manifest_is_refused(
    own: Path, change: dict[str, Any], rule: str, got: str
) -> None:
    file = own / "export.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with refusal(StudyError, rule, got=got, where=str(file), fix="hms-ray export"):
        read_export(file)


def test_pretrained_weights_are_not_looked_for(
    own: Path, exported: Path, data: Path, tmp_path: Path
) -> None:
    """The experiment names a file that does not exist here."""
    expected = submitted(exported, data, tmp_path, tmp_path / "a.parquet")
    about = json.loads((own / "export.json").read_text())
    for file in own.glob("models/*/experiment.yaml"):
        text = file.read_text().replace("pretrained: false", "pretrained: true")
        file.write_text(text.replace("weights_file: null", "weights_file: gone.safetensors"))
        about["files"][file.relative_to(own).as_posix()] = file_sha256(file)
    (own / "export.json").write_text(json.dumps(about))
    assert read_export(own / "export.json").models[0].experiment.model.weights_file
    found = submitted(own, data, tmp_path, tmp_path / "b.parquet")
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_other_versions_are_noted(own: Path) -> None:
    file = own / "export.json"
    about = json.loads(file.read_text())
    about["versions"]["torch"] = "1.0.0"
    file.write_text(json.dumps(about))
    (note,) = read_export(file).notes
    assert note.startswith("torch ")
    assert note.endswith("exported with 1.0.0: predictions may differ slightly")


def test_members_without_models_are_refused(results: Path, tmp_path: Path) -> None:
    file = tmp_path / "blend.json"
    write_blend(file, [{"name": "a", "file": "a.csv"}, {"name": "b", "keys": {"0": "ab" * 32}}])
    options = ExportOptions(out=tmp_path / "out", results=results)
    with refusal(PredictionError, "without stored fold models", got="a", fix="Blend without it"):
        export(str(file), options)
    write_blend(file, [{"name": "b", "keys": {"0": "ab" * 32}}])
    with refusal(StudyError, got="ab" * 32, where="member b", fix="Blend without it"):
        export(str(file), options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blend.json"]


def test_targets_and_folders_that_do_not_fit_are_refused(
    results: Path, exported: Path, tmp_path: Path
) -> None:
    options = ExportOptions(out=tmp_path / "out", results=results)
    with refusal(StudyError, "STUDY/TRIAL or a blend", got="export", fix="Copy that folder"):
        export(str(exported), options)
    with refusal(StudyError, "the target must be a study", got="mean kaggle?"):
        export("kagle", options)
    full = ExportOptions(out=exported, results=results)
    with refusal(ConfigError, "new or empty folder", got=str(exported), fix="another folder"):
        export("kaggle", full)
    call = SubmitOptions(data_dir=tmp_path, results=results)
    with refusal(ConfigError, "--train-rows", got="an export"):
        submit(str(exported), SubmitOptions(**{**vars(call), "train_rows": True}))
    with refusal(ConfigError, "--predictions", got="an export"):
        submit(str(exported), SubmitOptions(**{**vars(call), "predictions": ["a=b"]}))


def test_an_export_is_whole_or_absent(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("hms_ray.blend.export.write_own_wheel", full)
    with pytest.raises(OSError, match="no space"):
        export("kaggle", ExportOptions(out=tmp_path / "out", results=results))
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_what_comes_next(
    results: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["export", "blend", "--out", f"{out}", "--results", f"{results}"]) == 0
    skipped, written, then = capsys.readouterr().out.splitlines()
    assert skipped == "1 of 3 members have weight 0 and are skipped"
    assert written.startswith(f"{out}: blend results/blend, 2 members with 4 fold models, ")
    assert then == f"next: hms-ray submit {out} --data DIR"
    assert len(list(out.glob("*.whl"))) == 3
    words = ["--data", f"{data}", "--out", f"{tmp_path / 'a.csv'}", "--device", "cpu"]
    assert main(["submit", f"{out}", *words]) == 0
    text = capsys.readouterr().out
    assert "3 test rows in " in text
    assert "3,000 rows take at most " in text
    assert "next: " not in text


def test_the_time_of_3000_rows_is_estimated() -> None:
    times = RunTimes(packing_s=10.0, models_s=30.0, rows_s=20.0)
    assert times.estimate_s(100) == 30 + 30 * 30
    assert times.text(100) == (
        "100 test rows in 60.0 s (packing 10.0 s, models 30.0 s, predicting 20.0 s); at this rate "
        "3,000 rows take about 16 min"
    )
    assert times.text(3000).endswith("3,000 rows take about 1.0 min")
    assert times.text(63).endswith("3,000 rows take at most 24 min")


OFFLINE = """
import sys

FORBIDDEN = {forbidden}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{"ray", "optuna", "tensorboard", "matplotlib"}}:
            raise AssertionError("imported " + name)

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise AssertionError(event)
    if event == "open" and str(arguments[0]).startswith(FORBIDDEN):
        raise AssertionError("read " + str(arguments[0]))

if __name__ == "__main__":
    sys.meta_path.insert(0, Refuse())
    sys.addaudithook(watch)
    import hms_ray
    from hms_ray.cli.main import main
    status = main(sys.argv[1:])
    print(hms_ray.__file__)
    sys.exit(status)
"""


def test_the_exported_wheel_predicts_without_ray_optuna_network_or_results(
    results: Path, data: Path, tmp_path: Path
) -> None:
    """The wheels are installed as in a notebook, and the program runs from there."""
    expected = submitted("blend", data, results, tmp_path / "expected.parquet")
    out, packages = tmp_path / "export", tmp_path / "packages"
    export("blend", ExportOptions(out=out, results=results))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    wheels = sorted(map(str, out.glob("*.whl")))
    options = ["--no-index", "--no-deps", "--no-compile", "--target", str(packages)]
    subprocess.run([*pip, *options, *wheels], check=True)
    caches = str(Path.home() / ".cache")
    program = tmp_path / "offline.py"
    program.write_text(OFFLINE.format(forbidden=(str(results), caches)))
    (tmp_path / "empty").mkdir()
    words = ["submit", str(out), "--data", str(data), "--out", str(tmp_path / "found.parquet")]
    words += ["--device", "cpu", "--pack-dir", str(tmp_path / "packs")]
    done = subprocess.run(
        [
            sys.executable,
            str(program),
            *words,
            "--device",
            "cpu",
            "--pack-dir",
            str(tmp_path / "p"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path / "empty",
        env={**os.environ, "PYTHONPATH": str(packages), "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(packages / "hms_ray" / "__init__.py")
    found = pd.read_parquet(tmp_path / "found.parquet")
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
