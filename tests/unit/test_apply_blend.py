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
from hms_ray.blend.stored import read_blend
from hms_ray.blend.submit import submit
from hms_ray.competition.schema import PROBABILITY_COLUMNS
from hms_ray.ensemble.methods.registry import named_methods
from hms_ray.errors import ConfigError, DataError, HmsRayError, PredictionError, StudyError
from hms_ray.predict.files import write_predictions
from hms_ray.predict.models import predict_trial
from hms_ray.predict.recordings import recordings_of_test
from hms_ray.predict.submission import make_submission
from hms_ray.predict.submit_trial import SubmitOptions
from hms_ray.predict.trial import chosen_trial, read_models
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


def shares(seed: int, n: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(6), size=n)


def fitted(method: str, n_models: int) -> Any:
    """A fitted_method fitted on made-up rows."""
    (chosen,) = named_methods([method])
    models = np.stack([shares(seed, 60) for seed in range(n_models)])
    targets = 0.5 * models[0] + 0.5 * models.mean(axis=0)
    return chosen.fit(targets, models, patients=np.arange(60) // 5)


def of_study(study: TrainedStudy) -> dict[str, Any]:
    keys = {str(fold): key for fold, key in chosen_trial(study.folder).keys.items()}
    return {"name": f"{study.name} 0000", "study": study.name, "trial": 0, "keys": keys}


def write_blend(
    file: Path, members: list[dict[str, Any]], method: str = "simplex", **others: Any
) -> Any:
    fitted_method = fitted(method, len(members))
    described = {
        "method": method,
        "fitted": fitted_method.to_json(),
        "members": members,
        "rows_fingerprint": "0" * 64,
        **others,
    }
    file.write_text(json.dumps(described))
    return fitted_method


def write_given(file: Path, seed: int) -> np.ndarray:
    """Predictions of the test recordings, in an order of their own; returned sorted by EEG."""
    table = make_submission(sorted(TEST_EEGS), sorted(TEST_EEGS), shares(seed))
    write_predictions(file, table.iloc[[1, 2, 0]])
    return table[list(PROBABILITY_COLUMNS)].to_numpy()


def options(data: Path, given: dict[str, Path] | None = None, **others: Any) -> SubmitOptions:
    predictions = [f"{name}={file}" for name, file in (given or {}).items()]
    return SubmitOptions(data_dir=data, device="cpu", predictions=predictions, **others)


def by_models(study: TrainedStudy, data: Path) -> np.ndarray:
    models = read_models("x", chosen_trial(study.folder).keys, study.results)
    recordings = recordings_of_test(data, [models.experiment.input])
    return predict_trial(models, recordings, CPU)[0][ORDER]


@pytest.mark.parametrize("method", METHODS)
def test_members_are_blended_by_the_stored_method(
    studies: list[TrainedStudy], data: Path, tmp_path: Path, method: str
) -> None:
    brought = write_given(tmp_path / "brought.parquet", 9)
    members = [of_study(studies[0]), {"name": "brought", "file": "oof.csv"}, of_study(studies[1])]
    fitted_method = write_blend(tmp_path / "blend.json", members, method)
    given = {"brought": tmp_path / "brought.parquet"}
    call = options(data, given, results=studies[0].results)
    applied = apply_blend(tmp_path / "blend.json", call)
    stack = np.stack([by_models(studies[0], data), brought, by_models(studies[1], data)])
    assert applied.eeg_ids == sorted(TEST_EEGS)
    found = applied.submission[list(PROBABILITY_COLUMNS)].to_numpy()
    np.testing.assert_allclose(found, fitted_method.predict(stack), atol=1e-12)
    assert (
        np.abs(found - fitted_method.predict(stack[::-1])).max() > 1e-3
    )  # the order of models counts
    assert applied.notes == ()


def test_submitting_a_blend_writes_its_submission(
    studies: list[TrainedStudy], data: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "blend.json", tmp_path / "submission.csv"
    write_blend(file, [of_study(study) for study in studies])
    call = options(data, results=studies[0].results, out=out)
    assert submit(str(file), call) == f"{out}: 3 rows, blend of {file}"
    table = pd.read_csv(out)
    assert table["eeg_id"].tolist() == sorted(TEST_EEGS)
    pd.testing.assert_frame_equal(table, apply_blend(file, call).submission, rtol=1e-15)
    assert submit(str(tmp_path), call) == f"{out}: 3 rows, blend of {file}"


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
def test_members_of_weight_0_are_not_predicted(data: Path, tmp_path: Path, method: str) -> None:
    """Nor are they missed: neither models nor predictions of theirs are there."""
    members = [
        {"name": "gone", "study": "s", "trial": 3, "keys": {"0": "ab" * 32}},
        {"name": "brought", "file": "oof.csv"},
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
    brought = write_given(tmp_path / "brought.csv", 3)
    given = {"brought": tmp_path / "brought.csv"}
    applied = apply_blend(tmp_path / "blend.json", options(data, given, results=tmp_path))
    assert applied.notes == ("2 of 3 members have weight 0 and are not predicted",)
    found = applied.submission[list(PROBABILITY_COLUMNS)]
    np.testing.assert_allclose(found, brought, atol=1e-12)


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


BROUGHT = [{"name": "a", "file": "a.csv"}, {"name": "b", "file": "b.csv"}]


@pytest.fixture
def brought(tmp_path: Path) -> dict[str, Path]:
    """Predictions of two members, and ``blend.json`` of them beside."""
    write_blend(tmp_path / "blend.json", BROUGHT)
    given = {}
    for seed, name in enumerate("ab"):
        given[name] = tmp_path / f"{name}.csv"
        write_given(given[name], seed)
    return given


def test_members_and_predictions_must_fit_each_other(
    data: Path, tmp_path: Path, brought: dict[str, Path]
) -> None:
    file = tmp_path / "blend.json"
    apply_blend(file, options(data, brought))
    message = (
        r"^a member whose fold models are not known needs predictions of the new rows, got none "
        r"for b\. Give them: --predictions b=FILE \(eeg_id and six probabilities\)\.$"
    )
    with pytest.raises(PredictionError, match=message):
        apply_blend(file, options(data, {"a": brought["a"]}))
    message = r"must be of a member of the blend, got c\. Members: a, b\.$"
    with pytest.raises(ConfigError, match=message):
        apply_blend(file, options(data, {**brought, "c": brought["a"]}))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda t: t[:2], PredictionError, r"every test EEG must be predicted, got no row for 1"),
        (lambda t: pd.concat([t, t]), PredictionError, r"an EEG must be predicted once"),
        (
            lambda t: pd.concat([t, t[:1].assign(eeg_id=1)]),
            PredictionError,
            r"only test EEGs may be predicted, got a row for 1, in .*a\.csv, EEG 1$",
        ),
        (
            lambda t: t.assign(gpd_vote=2.0),
            PredictionError,
            r"each row of predictions must sum to 1 within 1e-05, .*, in .*a\.csv, 3 row\(s\)",
        ),
        (lambda t: t.drop(columns="lpd_vote"), DataError, r"a\.csv must have its 7 columns"),
    ],
)
def test_given_predictions_with_faults_are_refused(
    data: Path,
    tmp_path: Path,
    brought: dict[str, Path],
    change: Callable[[pd.DataFrame], pd.DataFrame],
    error: type[HmsRayError],
    message: str,
) -> None:
    change(pd.read_csv(brought["a"])).to_csv(brought["a"], index=False)
    with pytest.raises(error, match=message):
        apply_blend(tmp_path / "blend.json", options(data, brought))


def without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda data: {key: value for key, value in data.items() if key != name}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            without("members"),
            StudyError,
            r"a blend file must have the fields method, fitted and members, got no members, in ",
        ),
        (without("fitted"), StudyError, r"got no fitted, in .*blend\.json\. Run hms-ray blend"),
        (
            lambda data: {**without("fitted")(data), "pool": data["fitted"]},
            StudyError,
            r"got one of an earlier version, in .*blend\.json\. Run hms-ray blend again\.$",
        ),
        (
            lambda data: {**data, "members": [{"file": "a.csv"}, BROUGHT[1]]},
            StudyError,
            r"each member of a blend must have its name, .*, got KeyError: 'name', in ",
        ),
        (
            lambda data: {**data, "members": [{"name": "a", "keys": {"x": "0"}}]},
            StudyError,
            r"and keys by the numbers of folds or none, got ValueError: invalid literal",
        ),
        (lambda data: {**data, "members": 3}, StudyError, r"members? of a blend must.*TypeError"),
        (
            lambda data: {**data, "members": [BROUGHT[0], BROUGHT[0]]},
            PredictionError,
            r"the members of a blend must have names of their own, got a, a, in .*blend\.json",
        ),
        (
            lambda data: {**data, "members": []},
            PredictionError,
            r"must have names of their own, got no member",
        ),
        (
            lambda data: {**data, "fitted": {"form": "median"}},
            PredictionError,
            r"a fitted method's form must be one of mean, .*, got median, in .*json, form median",
        ),
        (
            lambda data: {**data, "fitted": [1]},
            PredictionError,
            r"a fitted method must be a mapping, got list, in .*blend\.json\. Run hms",
        ),
        (
            lambda data: {**data, "fitted": {**data["fitted"], "weights": [0.9, 0.2]}},
            PredictionError,
            r"must be at least 0 and sum to 1, got .* sum 1\.1, in .*json, form mean\. Run hms",
        ),
        (
            lambda data: {**data, "members": BROUGHT[:1]},
            PredictionError,
            (
                r"the fitted method of a blend must combine its 1 member\(s\), got another number: "
                r"predictions must have the shape \(2, rows, 6\), .*, in .*blend\.json\. Run hms"
            ),
        ),
    ],
)
def test_a_broken_blend_is_refused(
    data: Path,
    tmp_path: Path,
    brought: dict[str, Path],
    change: Callable[[dict[str, Any]], dict[str, Any]],
    error: type[HmsRayError],
    message: str,
) -> None:
    file = tmp_path / "blend.json"
    told = change(json.loads(file.read_text()))
    file.write_text(json.dumps(told))
    with pytest.raises(error, match=message):
        apply_blend(file, options(data, brought))


def test_a_blend_that_is_not_there_is_told(data: Path, tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match=r"a blend must exist to be applied, got none, in"):
        read_blend(tmp_path / "blend.json")
    file = tmp_path / "blend.json"
    write_blend(file, [{"name": "x", "study": "s", "trial": 0, "keys": {"0": "ab" * 32}}])
    message = (
        r"a fold must be in the store before it is read, got nothing under (ab){32}, in .*\.store, "
        r"member x\. Train it first\. Or give its predictions: --predictions x=FILE\.$"
    )
    with pytest.raises(StudyError, match=message):
        apply_blend(file, options(data, results=tmp_path))
    write_blend(file, [{"name": "x", "study": "s", "trial": 0, "keys": {}}])
    message = (
        r"predicting needs the model of a fold, got none, in member x\. Give its predictions: "
        r"--predictions x=FILE\.$"
    )
    with pytest.raises(StudyError, match=message):
        apply_blend(file, options(data, results=tmp_path))
    message = r"a blend to apply must be a file, got a folder, in .*\. Name its blend\.json\.$"
    with pytest.raises(PredictionError, match=message):
        read_blend(tmp_path)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a"], "predictions must be given as NAME=FILE, got a"),
        (["=a.csv"], "predictions must be given as NAME=FILE, got =a.csv"),
        (["a="], "predictions must be given as NAME=FILE, got a="),
        (["a=1.csv", "a=2.csv"], "a member's predictions must be given once, got a"),
    ],
)
def test_predictions_are_named(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        named_files(texts)
    assert named_files(["a b=c.csv", "x=y=d.csv"]) == {"a b": Path("c.csv"), "x=y": Path("d.csv")}


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
    studies: list[TrainedStudy], data: Path, tmp_path: Path, brought: dict[str, Path]
) -> None:
    write_blend(tmp_path / "models.json", [of_study(study) for study in studies])
    common = {"results": studies[0].results, "out": tmp_path / "o.csv"}
    calls = [
        (str(tmp_path / "blend.json"), vars(options(data, brought, **common))),
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
        ("kagle", {}, StudyError, "study, STUDY/TRIAL or a blend.json", "mean kaggle?"),
        ("kagle/0", {}, StudyError, "study, STUDY/TRIAL or a blend.json", "mean kaggle?"),
        ("gone/blend.json", {}, StudyError, "study, STUDY/TRIAL or a blend.json", "gone"),
        ("kaggle/7", {}, StudyError, "must have finished", "7"),
        ("kaggle", {"predictions": ["a=a.csv"]}, ConfigError, "--predictions", "kaggle"),
        ("made", {"train_rows": True}, ConfigError, "--train-rows", "blend.json"),
        ("steps", {}, StudyError, "a ladder cannot be submitted", "steps"),
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
    for file in ("made/blend.json", "steps/steps.json"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    with pytest.raises(error) as caught:
        submit(target, SubmitOptions(data_dir=tmp_path, results=studies[0].results, **changes))
    assert rule in caught.value.rule
    assert got in str(caught.value.got)
