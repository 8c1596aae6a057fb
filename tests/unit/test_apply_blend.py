"""A stored blend on test recordings: by fold models, by given predictions, by both."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hms_ray.blend.apply import apply_blend, named_files
from hms_ray.blend.column_names import parse_columns
from hms_ray.blend.fit_command import blend
from hms_ray.blend.settings import Settings
from hms_ray.blend.stored import read_blend
from hms_ray.blend.submit import submit
from hms_ray.competition.read import read_signal
from hms_ray.competition.schema import PROBABILITY_COLUMNS
from hms_ray.competition.tables import short_name
from hms_ray.errors import ConfigError, DataError, HmsRayError, PredictionError, StudyError
from hms_ray.evaluate.shares import Renormalised
from hms_ray.predict.files import write_predictions
from hms_ray.predict.models import predict_trial
from hms_ray.predict.recordings import recordings_of_test
from hms_ray.predict.submission import make_submission
from hms_ray.predict.submit_trial import SubmitOptions
from hms_ray.predict.trial import read_models
from tests.blend_data import make_rows
from tests.refused import refusal
from tests.stored_blend import of_study, shares, write_blend
from tests.trained_study import TEST_EEGS, TrainedStudy, train_study, write_test_set

pytestmark = pytest.mark.usefixtures("one_process")

CPU = torch.device("cpu")
ORDER = np.argsort(TEST_EEGS)
"""Of the sample submission, among the rows of test.csv."""
METHODS = ("simplex", "log_linear_context", "simplex_and_context")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[TrainedStudy]:
    """Two studies of one results folder, of different sources."""
    place = tmp_path_factory.mktemp("studies")
    return [train_study(place, name) for name in ("kaggle", "eeg")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_test_set(tmp_path_factory.mktemp("data") / "data")


def write_given(file: Path, seed: int) -> np.ndarray:
    """Predictions of the test recordings, in an order of their own; returned sorted by EEG."""
    table = make_submission(sorted(TEST_EEGS), sorted(TEST_EEGS), shares(seed))
    write_predictions(file, table.iloc[[1, 2, 0]])
    return table[list(PROBABILITY_COLUMNS)].to_numpy()


def options(data: Path, given: dict[str, Path] | None = None, **others: Any) -> SubmitOptions:
    predictions = [f"{name}={file}" for name, file in (given or {}).items()]
    return SubmitOptions(data_dir=data, device="cpu", predictions=predictions, **others)


def by_models(study: TrainedStudy, data: Path) -> np.ndarray:
    models = read_models("x", study.folder.finished_trial().keys, study.results)
    recordings = recordings_of_test(data, [models.experiment.input])
    return predict_trial(models, recordings, CPU)[0][ORDER]


@pytest.mark.parametrize("method", METHODS)
def test_members_are_blended_by_the_stored_method(
    studies: list[TrainedStudy], data: Path, tmp_path: Path, method: str
) -> None:
    external = write_given(tmp_path / "external.parquet", 9)
    members = [of_study(studies[0]), {"name": "external", "file": "oof.csv"}, of_study(studies[1])]
    fitted_method = write_blend(tmp_path / "blend.json", members, method)
    given = {"external": tmp_path / "external.parquet"}
    call = options(data, given, results=studies[0].results)
    applied = apply_blend(tmp_path / "blend.json", call)
    stack = np.stack([by_models(studies[0], data), external, by_models(studies[1], data)])
    assert applied.eeg_ids == sorted(TEST_EEGS)
    found = applied.submission[list(PROBABILITY_COLUMNS)].to_numpy()
    np.testing.assert_allclose(found, fitted_method.predict(stack), atol=1e-12)
    other_order = fitted_method.predict(stack[::-1])
    assert np.abs(found - other_order).max() > 1e-3
    assert applied.notes == ()


def test_submitting_a_blend_writes_its_submission(
    studies: list[TrainedStudy], data: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "blend.json", tmp_path / "submission.csv"
    write_blend(file, [of_study(study) for study in studies])
    call = options(data, results=studies[0].results, out=out)
    written, rate = submit(str(file), call).splitlines()
    assert written == f"{out}: 3 rows, blend of {file}"
    assert rate.startswith("3 test rows in ")
    table = pd.read_csv(out)
    assert table["eeg_id"].tolist() == sorted(TEST_EEGS)
    pd.testing.assert_frame_equal(table, apply_blend(file, call).submission, rtol=1e-15)
    assert submit(str(tmp_path), call).splitlines()[0] == written


def test_members_share_packed_recordings(
    studies: list[TrainedStudy], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each recording is read once per source, whatever the number of members and folds."""
    read: list[str] = []
    own = read_signal

    def counted(path: Path, *others: Any) -> Any:
        read.append(path.name)
        return own(path, *others)

    monkeypatch.setattr("hms_ray.competition.read.read_signal", counted)
    twin = {**of_study(studies[0]), "name": "twin"}
    write_blend(tmp_path / "blend.json", [of_study(study) for study in studies] + [twin], "equal")
    call = options(data, results=studies[0].results, pack_dir=tmp_path / "packs")
    apply_blend(tmp_path / "blend.json", call)
    spectrograms, eegs = [eeg_id + 100_000 for eeg_id in TEST_EEGS], list(TEST_EEGS)
    assert sorted(read) == sorted(f"{number}.parquet" for number in spectrograms + eegs)


def test_predictions_replace_models(
    studies: list[TrainedStudy], data: Path, tmp_path: Path
) -> None:
    parts = [write_given(tmp_path / f"{seed}.csv", seed) for seed in (4, 5)]
    fitted_method = write_blend(tmp_path / "blend.json", [of_study(study) for study in studies])
    given = {"kaggle 0000": tmp_path / "4.csv", "eeg 0000": tmp_path / "5.csv"}
    out = tmp_path / "o.parquet"
    call = options(data, given, results=tmp_path / "none", out=out)
    submit(str(tmp_path / "blend.json"), call)
    found = pd.read_parquet(out)[list(PROBABILITY_COLUMNS)]
    np.testing.assert_allclose(found, fitted_method.predict(np.stack(parts)), atol=1e-12)


@pytest.mark.parametrize("method", ["simplex", "simplex_recalibrated", "average"])
def test_members_of_weight_0_are_skipped(data: Path, tmp_path: Path, method: str) -> None:
    """Neither their models nor their predictions are needed."""
    members = [
        {"name": "gone", "study": "s", "trial": 3, "keys": {"0": "ab" * 32}},
        {"name": "external", "file": "oof.csv"},
        {"name": "step", "ladder": "ladder", "step": "32_one_eeg"},
    ]
    weights = [0.0, 1.0, 0.0]
    stored = {"form": "mean", "weights": weights, "facts": {}}
    if method == "simplex_recalibrated":
        stored = {"form": "recalibrated", "member": stored, "biases": [0.0] * 6, "temperature": 1.0}
    elif method == "average":
        other = {**stored, "weights": [1.0, 0.0, 0.0]}
        stored = {"form": "average", "members": [stored, other, stored], "weights": [0.5, 0.0, 0.5]}
    write_blend(tmp_path / "blend.json", members, fitted=stored)
    external = write_given(tmp_path / "external.csv", 3)
    given = {"external": tmp_path / "external.csv"}
    applied = apply_blend(tmp_path / "blend.json", options(data, given, results=tmp_path))
    assert applied.notes == ("2 of 3 members have weight 0 and are skipped",)
    found = applied.submission[list(PROBABILITY_COLUMNS)]
    np.testing.assert_allclose(found, external, atol=1e-12)


def test_methods_without_zero_weights_need_all_members(tmp_path: Path) -> None:
    members = [{"name": name, "file": "oof.csv"} for name in "abc"]
    for method in METHODS[1:]:
        write_blend(tmp_path / "blend.json", members, method)
        assert len(read_blend(tmp_path / "blend.json").needed()) == 3
    first = {"form": "mean", "weights": [1.0, 0.0, 0.0], "facts": {}}
    second = {**first, "weights": [0.0, 0.0, 1.0]}
    stored = {"form": "average", "members": [first, second], "weights": [0.5, 0.5]}
    write_blend(tmp_path / "blend.json", members, fitted=stored)
    needed = read_blend(tmp_path / "blend.json").needed()
    assert [member.name for member in needed] == ["a", "c"]


EXTERNAL = [{"name": "a", "file": "a.csv"}, {"name": "b", "file": "b.csv"}]


@pytest.fixture
def external(tmp_path: Path) -> dict[str, Path]:
    """Files of predictions of the two members of ``blend.json``."""
    write_blend(tmp_path / "blend.json", EXTERNAL)
    given = {}
    for seed, name in enumerate("ab"):
        given[name] = tmp_path / f"{name}.csv"
        write_given(given[name], seed)
    return given


def test_predictions_must_be_of_members(
    data: Path, tmp_path: Path, external: dict[str, Path]
) -> None:
    file = tmp_path / "blend.json"
    apply_blend(file, options(data, external))
    rule, fix = "needs predictions of the test recordings", "--predictions b=FILE"
    with refusal(PredictionError, rule, got="none for b", fix=fix):
        apply_blend(file, options(data, {"a": external["a"]}))
    with refusal(ConfigError, "must name a member of the blend", got="c (known: a, b)"):
        apply_blend(file, options(data, {**external, "c": external["a"]}))


@pytest.mark.parametrize(
    ("change", "error", "rule", "where"),
    [
        (lambda t: t[:2], PredictionError, "every test EEG must be predicted", "a.csv, EEG"),
        (lambda t: pd.concat([t, t]), PredictionError, "predicted once", "a.csv, EEG"),
        (
            lambda t: pd.concat([t, t[:1].assign(eeg_id=5)]),
            PredictionError,
            "only test EEGs",
            "a.csv, EEG 5",
        ),
        (lambda t: t.assign(gpd_vote=0.9), PredictionError, "must sum to 1", "a.csv, 3 row(s)"),
        (lambda t: t.drop(columns="lpd_vote"), DataError, "a.csv", ""),
    ],
)
def test_faulty_predictions_of_a_member_are_refused(
    data: Path,
    tmp_path: Path,
    external: dict[str, Path],
    change: Callable[[pd.DataFrame], pd.DataFrame],
    error: type[HmsRayError],
    rule: str,
    where: str,
) -> None:
    change(pd.read_csv(external["a"])).to_csv(external["a"], index=False)
    with refusal(error, rule, where=where):
        apply_blend(tmp_path / "blend.json", options(data, external))


def without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda data: {key: value for key, value in data.items() if key != name}


def with_members(members: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda data: {**data, "members": members}


def with_fitted(**fields: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda data: {**data, "fitted": {**data["fitted"], **fields}}


@pytest.mark.parametrize(
    ("change", "error", "rule", "got"),
    [
        (without("members"), StudyError, "method, fitted and members", "no members"),
        (without("fitted"), StudyError, "method, fitted and members", "no fitted"),
        (with_members([{"file": "a.csv"}, EXTERNAL[1]]), StudyError, "have a name", "KeyError"),
        (with_members([{"name": "a", "keys": {"x": "0"}}]), StudyError, "by fold", "invalid lit"),
        (with_members(3), StudyError, "member of a blend", "TypeError"),
        (with_members([EXTERNAL[0], EXTERNAL[0]]), PredictionError, "unique names", "a, a"),
        (with_members([]), PredictionError, "unique names", "no member"),
        (with_fitted(form="median"), PredictionError, "form", "median"),
        (lambda data: {**data, "fitted": [1]}, PredictionError, "must be a mapping", "list"),
        (with_fitted(weights=[0.9, 0.2]), PredictionError, "sum to 1", "1.1"),
        (with_members(EXTERNAL[:1]), PredictionError, "combine its 1 member(s)", "another number"),
    ],
)
def test_a_damaged_blend_is_refused(
    data: Path,
    tmp_path: Path,
    external: dict[str, Path],
    change: Callable[[dict[str, Any]], dict[str, Any]],
    error: type[HmsRayError],
    rule: str,
    got: str,
) -> None:
    file = tmp_path / "blend.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with refusal(error, rule, got=got, where=str(file), fix="hms-ray blend"):
        apply_blend(file, options(data, external))


def test_missing_models_of_a_member_are_refused(data: Path, tmp_path: Path) -> None:
    file, fix = tmp_path / "blend.json", "predictions: --predictions x=FILE"
    write_blend(file, [{"name": "x", "study": "s", "trial": 0, "keys": {"0": "ab" * 32}}])
    with refusal(StudyError, got="ab" * 32, where="member x", fix=fix):
        apply_blend(file, options(data, results=tmp_path))
    write_blend(file, [{"name": "x", "study": "s", "trial": 0, "keys": {}}])
    with refusal(StudyError, "at least one fold model", where="member x", fix=fix):
        apply_blend(file, options(data, results=tmp_path))


@pytest.mark.parametrize(
    ("texts", "rule", "got"),
    [
        (["a"], "NAME=FILE", "a"),
        (["=a.csv"], "NAME=FILE", "=a.csv"),
        (["a="], "NAME=FILE", "a="),
        (["a=1.csv", "a=2.csv"], "once per member", "a"),
    ],
)
def test_predictions_are_named(texts: list[str], rule: str, got: str) -> None:
    with refusal(ConfigError, rule, got=got):
        named_files(texts)
    assert named_files(["a b=c.csv", "x=y=d.csv"]) == {"a b": Path("c.csv"), "x=y": Path("d.csv")}


def test_names_and_rounding_are_handled_alike_in_fitting_and_applying(
    data: Path, tmp_path: Path
) -> None:
    """Column names of a fitted file hold for the member's test file; others can be named."""
    names = {name: f"p{n}" for n, name in enumerate(PROBABILITY_COLUMNS)}
    pairs = ",".join(f"{short_name(name)}={theirs}" for name, theirs in names.items())
    rows = make_rows()
    for seed, name in enumerate("ab"):
        frame = pd.DataFrame(shares(seed, 60).round(3), columns=list(names.values()))
        frame.assign(key=rows["row_id"]).to_csv(tmp_path / f"{name}.csv", index=False)
    rows.to_parquet(tmp_path / "votes.parquet")
    inputs = [tmp_path / "a.csv", tmp_path / "b.csv"]
    columns = parse_columns([f"row_id=key,{pairs}"])
    given = {"targets": str(tmp_path / "votes.parquet"), "columns": columns, "out": tmp_path}
    with refusal(PredictionError, "must sum to 1", where="a.csv", fix="Add --renormalise"):
        blend(inputs, tmp_path, Settings(**given))
    text = " ".join(blend(inputs, tmp_path, Settings(**given, renormalise=True)).split())
    stored = json.loads((tmp_path / "blend.json").read_text())
    for name in "ab":
        done = Renormalised(**stored["renormalised"][name])
        assert 0 < done.rows < done.of == 60
        assert f"{name}: {done}." in text
    assert stored["members"][0]["columns"] == columns.everywhere

    parts = [shares(seed).round(3) for seed in (6, 9)]
    for name, part in zip("ab", parts, strict=True):
        titles = list(names.values()) if name == "a" else [f"q{n}" for n in range(6)]
        frame = pd.DataFrame(part, columns=titles).assign(eeg_id=sorted(TEST_EEGS))
        frame.to_csv(tmp_path / f"test_{name}.csv", index=False)
    files = {name: tmp_path / f"test_{name}.csv" for name in "ab"}
    with refusal(DataError, "test_b.csv", got="no seizure_vote", fix="--columns test_b.csv:seiz"):
        apply_blend(tmp_path / "blend.json", options(data, files, renormalise=True))
    changes = {"columns": [f"test_b.csv:{pairs.replace('=p', '=q')}"], "renormalise": True}
    applied = apply_blend(tmp_path / "blend.json", options(data, files, **changes))
    stack = np.stack([part / part.sum(axis=1, keepdims=True) for part in parts])
    expected = read_blend(tmp_path / "blend.json").fitted.predict(stack)
    np.testing.assert_allclose(applied.submission[list(PROBABILITY_COLUMNS)], expected, atol=1e-12)
    assert [note.partition(":")[0] for note in applied.notes] == list(map(str, files.values()))
    assert all("renormalised" in note for note in applied.notes)
    with refusal(PredictionError, "--columns must name a file", got="other.csv", fix="Write the"):
        apply_blend(tmp_path / "blend.json", options(data, files, columns=["other.csv:lpd=a"]))


PROBE = """
import sys
from pathlib import Path
from hms_ray.blend.submit import submit
from hms_ray.predict.submit_trial import SubmitOptions
if __name__ == "__main__":
    for target, options in {calls}:
        submit(target, SubmitOptions(**options))
        print("imported:", *sorted({{"ray", "optuna", "torch"}} & set(sys.modules)))
"""


def test_ray_is_never_imported_and_torch_only_for_models(
    studies: list[TrainedStudy], data: Path, tmp_path: Path, external: dict[str, Path]
) -> None:
    write_blend(tmp_path / "models.json", [of_study(study) for study in studies])
    common = {"results": studies[0].results, "out": tmp_path / "o.csv"}
    calls = [
        (str(tmp_path / "blend.json"), vars(options(data, external, **common))),
        ("kaggle", vars(options(data, **common))),
        (str(tmp_path / "models.json"), vars(options(data, **common))),
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(calls=calls).replace("PosixPath", "Path")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    imported = [line for line in done.stdout.splitlines() if line.startswith("imported:")]
    assert imported == ["imported:", "imported: torch", "imported: torch"]


@pytest.mark.parametrize(
    ("target", "changes", "error", "rule", "got"),
    [
        (
            "kagle",
            {},
            StudyError,
            "the target must be a study, STUDY/TRIAL, a blend.json",
            "mean kaggle?",
        ),
        (
            "kagle/0",
            {},
            StudyError,
            "the target must be a study, STUDY/TRIAL, a blend.json",
            "mean kaggle?",
        ),
        (
            "gone/blend.json",
            {},
            StudyError,
            "the target must be a study, STUDY/TRIAL, a blend.json",
            "gone",
        ),
        ("kaggle/7", {}, StudyError, "must have finished", "7"),
        ("kaggle", {"predictions": ["a=a.csv"]}, ConfigError, "--predictions", "kaggle"),
        ("made", {"train_rows": True}, ConfigError, "--train-rows", "blend.json"),
        ("made", {"columns": ["lpd=a"]}, ConfigError, "--columns needs --predictions", "none"),
        ("kaggle", {"renormalise": True}, ConfigError, "--renormalise needs --pred", "none"),
        ("steps", {}, StudyError, "a ladder cannot be submitted", "steps"),
        ("table", {}, StudyError, "a ladder cannot be submitted", "table"),
    ],
)
def test_targets_and_options_that_do_not_fit_are_refused(
    studies: list[TrainedStudy],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    changes: dict[str, Any],
    error: type[HmsRayError],
    rule: str,
    got: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("made/blend.json", "steps/steps.json", "table/ladder.csv"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    with refusal(error, rule, got=got):
        submit(target, SubmitOptions(data_dir=tmp_path, results=studies[0].results, **changes))
