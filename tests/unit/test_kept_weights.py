"""Weights of stored folds that are freed: which ones, and what the commands then do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hms_ray.cli.main import main
from hms_ray.dataset.prepare import Prepared
from hms_ray.errors import StudyError
from hms_ray.experiment.fold_task import stage_keys
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.run import run_experiment
from hms_ray.storage.fold_store import FoldStore, StoredFoldError, fault_of
from hms_ray.storage.hashing import digest
from hms_ray.storage.store_contents import store_entries
from hms_ray.study.folder import StudyFolder
from hms_ray.study.kept_weights import KeptWeights
from hms_ray.study.new import create_study
from hms_ray.study.references import Reference, write_reference
from tests.refused import refusal
from tests.study_data import make_result, make_space
from tests.trained_study import TrainedStudy, train_study, write_test_set

KEY = "ab" + "0" * 62
OOF = pd.DataFrame({"row_id": ["1-0", "2-0"]})


def put(results: Path, key: str, content: bytes = b"weights", **record: Any) -> FoldStore:
    store = FoldStore(results)
    described = {"seconds": 1.5, "saved_s": 0.0, **record}
    store.write(key, OOF, described, lambda path: path.write_bytes(content))
    return store


def test_a_result_without_weights_is_whole_and_can_be_read(tmp_path: Path) -> None:
    store = put(tmp_path, KEY)
    before = store.path(KEY).stat().st_mtime
    record = (store.path(KEY) / "record.json").read_bytes()
    assert store.free_weights(KEY) == len(b"weights")
    assert store.path(KEY).stat().st_mtime == before, "freeing is no use of a fold"
    assert (store.path(KEY) / "record.json").read_bytes() == record
    assert store.has(KEY)
    assert not store.has_weights(KEY)
    stored = store.read(KEY)
    pd.testing.assert_frame_equal(stored.oof, OOF)
    assert not stored.has_weights
    assert fault_of(store.path(KEY)) is None
    assert store.free_weights(KEY) == 0
    assert store.free_weights("cd" * 32) == 0


def test_weights_that_were_not_freed_but_are_missing_are_damage(tmp_path: Path) -> None:
    store = put(tmp_path, KEY)
    (store.path(KEY) / "weights.pt").unlink()
    with refusal(StoredFoldError, got="weights.pt does not match"):
        store.read(KEY)


def test_predictions_of_a_result_without_weights_are_still_checked(tmp_path: Path) -> None:
    store = put(tmp_path, KEY)
    store.free_weights(KEY)
    (store.path(KEY) / "oof.parquet").write_bytes(b"other")
    with refusal(StoredFoldError, got="oof.parquet does not match"):
        store.read(KEY)


def test_writing_a_result_again_brings_its_weights_back(tmp_path: Path) -> None:
    store = put(tmp_path, KEY)
    store.free_weights(KEY)
    put(tmp_path, KEY, b"again")
    assert store.read(KEY).weights.read_bytes() == b"again"
    assert sorted(path.name for path in store.path(KEY).iterdir()) == [
        *("oof.parquet", "record.json", "weights.pt")
    ]
    assert not list(store.root.rglob(".draft-*"))


def test_store_lists_and_verifies_folds_without_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, KEY).free_weights(KEY)
    put(tmp_path, "cd" * 32)
    command = ["store", "--results", str(tmp_path)]
    assert main(command) == 0
    text = capsys.readouterr().out
    (row,) = [line.split() for line in text.splitlines() if line.startswith("no study")]
    assert "no weights" in text
    assert row[:4] == ["no", "study", "2", "1"]
    assert main([*command, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["entries"]
    assert {entry["name"]: entry["weights"] for entry in entries} == {KEY: False, "cd" * 32: True}
    assert main([*command, "--verify"]) == 0
    assert "2 stored folds complete and unchanged" in capsys.readouterr().out


def inputs(number: int, first_stage: int) -> dict[str, Any]:
    """Key inputs of a fold of two stages."""
    stages = [{"learning_rate": first_stage}, {"learning_rate": number}]
    return {"experiment": {"training": {"stages": stages}}}


@pytest.fixture
def study(tmp_path: Path, prepared: Prepared) -> StudyFolder:
    return create_study(tmp_path, "one", make_space(), prepared)


def add_trial(study: StudyFolder, number: int, kl: float, first_stage: int) -> str:
    """A finished trial with one fold of two stages; returns the cache key of the fold."""
    made_from = inputs(number, first_stage)
    key, (stage,) = digest(made_from), stage_keys(made_from)
    put(study.path.parent, key, made_from=made_from)
    put(study.path.parent, stage)
    result = replace(make_result(kl), keys={0: key})
    study.write_trial(number, {}, make_space().experiment, result)
    return key


def with_weights(results: Path) -> set[str]:
    entries = store_entries(results)
    return {entry.name for entry in entries if entry.kind == "fold" and entry.has_weights}


def stage_of(number: int, first_stage: int) -> str:
    return stage_keys(inputs(number, first_stage))[0]


def test_only_the_best_trials_keep_weights(study: StudyFolder, tmp_path: Path) -> None:
    scores = {0: 0.5, 1: 0.3, 2: 0.4, 3: 0.6}
    keys = {n: add_trial(study, n, kl, first_stage=10 + n) for n, kl in scores.items()}
    study.write_failure(4, {}, make_space().experiment, "no luck")
    kept = KeptWeights(study, tmp_path, 2, "kl_10")
    assert kept.free(study.trials()) == 4 * len(b"weights")
    assert with_weights(tmp_path) == {keys[1], keys[2], stage_of(1, 11), stage_of(2, 12)}
    assert {entry.name for entry in store_entries(tmp_path)} >= set(keys.values())
    keys[5] = add_trial(study, 5, 0.1, first_stage=15)
    kept.free(study.trials())
    assert with_weights(tmp_path) == {keys[5], keys[1], stage_of(5, 15), stage_of(1, 11)}


def add_pruned(study: StudyFolder, number: int) -> str:
    """A pruned trial with one trained fold; returns the cache key of the fold."""
    key = digest(inputs(number, 20 + number))
    put(study.path.parent, key, made_from=inputs(number, 20 + number))
    result = replace(make_result(0.9), keys={0: key})
    reason = "after 1 of 2 folds: worse"
    study.write_pruned(number, {}, make_space().experiment, result, reason, 0.9, 2)
    return key


def test_pruned_trials_lose_their_weights_before_finished_ones(
    study: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = [add_trial(study, n, 0.3 + n / 10, first_stage=10 + n) for n in range(3)]
    pruned = [add_pruned(study, n) for n in (3, 4)]
    free, freed = FoldStore.free_weights, list[str]()
    monkeypatch.setattr(FoldStore, "free_weights", lambda s, key: freed.append(key) or free(s, key))
    KeptWeights(study, tmp_path, 1, "kl_10").free(study.trials())
    order = [key for key in freed if key in (*finished, *pruned)]
    assert order == [*pruned, finished[2], finished[1]]


@pytest.mark.parametrize("pruned", [False, True])
def test_members_of_a_gain_reference_and_of_a_blend_keep_weights(
    study: StudyFolder, tmp_path: Path, pruned: bool
) -> None:
    best = add_trial(study, 0, 0.1, first_stage=10)
    add = (lambda n: add_pruned(study, n)) if pruned else (lambda n: add_trial(study, n, 0.5, n))
    in_reference, in_blend, free = add(1), add(2), add(3)
    oof = np.full((2, 6), 1 / 6)
    member = {"name": "0001", "trial": 1, "keys": {"0": in_reference}, "weight": 1.0}
    write_reference(study, study.rows(), Reference(0, "single", [member], [1], oof))
    blend = tmp_path / "blend" / "mine" / "blend.json"
    blend.parent.mkdir(parents=True)
    blend.write_text(json.dumps({"members": [{"keys": {"0": in_blend}}]}))
    KeptWeights(study, tmp_path, 1, "kl_10").free(study.trials())
    assert with_weights(tmp_path) >= {best, in_reference, in_blend}
    assert free not in with_weights(tmp_path)


def test_first_stages_that_trials_share_keep_weights(study: StudyFolder, tmp_path: Path) -> None:
    best, worse, worst = (add_trial(study, n, 0.3 + n / 10, first_stage=7) for n in range(3))
    KeptWeights(study, tmp_path, 1, "kl_10").free(study.trials())
    assert with_weights(tmp_path) == {best, stage_of(0, 7)}
    assert stage_of(0, 7) == stage_of(2, 7)
    other, another = (add_trial(study, n, 0.9, first_stage=8) for n in (3, 4))
    KeptWeights(study, tmp_path, 1, "kl_10").free(study.trials())
    assert with_weights(tmp_path) == {best, stage_of(0, 7), stage_of(3, 8)}
    assert len({worse, worst, other, another}) == 4


@pytest.mark.parametrize(
    "user",
    ["one/blend/blend.json", "blend/mine/blend.json", "a/steps.json", "b/trials/0/result.json"],
)
def test_weights_that_others_use_stay(study: StudyFolder, tmp_path: Path, user: str) -> None:
    keys = [add_trial(study, n, 0.3 + n / 10, first_stage=n) for n in range(3)]
    file = tmp_path / user
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"keys": {"0": keys[2]}}))
    KeptWeights(study, tmp_path, 1, "kl_10").free(study.trials())
    assert with_weights(tmp_path) >= {keys[0], keys[2]}
    assert keys[1] not in with_weights(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedStudy:
    """A study of one trial; its weights are freed."""
    study = train_study(tmp_path_factory.mktemp("trained"))
    for key in study.result.keys.values():
        assert FoldStore(study.results).free_weights(key) > 0
    return study


@pytest.mark.usefixtures("one_process")
def test_commands_name_the_members_to_train_again(
    trained: TrainedStudy, tmp_path: Path, error_line: Callable[..., str]
) -> None:
    blend = tmp_path / "blend.json"
    keys = {str(fold): key for fold, key in trained.result.keys.items()}
    weights = {"form": "mean", "weights": [0.5, 0.5], "facts": {}}
    members = [{"name": f"kaggle {n}", "keys": keys} for n in ("a", "b")]
    content = {"method": "simplex", "fitted": weights, "members": members}
    blend.write_text(json.dumps(content))
    data = write_test_set(tmp_path / "data")
    again = f"hms-ray train {trained.results}/kaggle/trials/0000/experiment.yaml --data DIR"
    for target, names in ((trained.name, ["kaggle 0000"]), (blend, ["kaggle a", "kaggle b"])):
        for command in (
            ["submit", target, "--data", data],
            ["export", target, "--out", tmp_path / "out", "--no-wheel"],
        ):
            line = error_line(*command, "--results", trained.results)
            assert "must have their weights" in line
            assert again in line
            assert all(f"{name} (fold 0, 1)" in line for name in names)


@pytest.mark.usefixtures("one_process")
def test_training_again_restores_the_same_weights(trained: TrainedStudy, tmp_path: Path) -> None:
    store, reports = FoldStore(trained.results), []
    experiment = trained.folder.trial(0).experiment  # type: ignore[union-attr]
    runner = InProcessRunner(device="cpu")
    run = (experiment, trained.prepared, trained.results, runner)
    assert run_experiment(*run).reused == (0, 1), "predictions are enough for a search"
    assert not store.has_weights(trained.result.keys[0])
    again = run_experiment(*run, report=reports.append, needs_weights=True)
    pd.testing.assert_frame_equal(again.oof, trained.result.oof, check_exact=True)
    assert again.reused == ()
    assert all(map(store.has_weights, trained.result.keys.values()))
    texts = [record["text"] for record in reports if record["event"] == "folds_not_reused"]
    assert texts == ["fold 0, 1: trained again, since the weights were freed"]
    assert run_experiment(*run, needs_weights=True).reused == (0, 1)


def test_a_missing_result_is_reported_by_its_reader(tmp_path: Path) -> None:
    from hms_ray.predict.trial import read_models

    with refusal(StudyError, "must be in the store", got=KEY):
        read_models("x", {0: KEY}, tmp_path)
