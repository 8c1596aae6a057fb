"""Reused stages: equal results, less training, and reports of what was reused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hms_ray.config.experiment import Experiment, ModelConfig
from hms_ray.config.values import replace_values
from hms_ray.dataset.prepare import Prepared, prepare
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import plan_folds, run_experiment
from hms_ray.storage.fold_store import FoldStore, StoredFold
from hms_ray.train import evaluation, fold_training
from hms_ray.train.process import Process
from tests.competition_folder import write_competition_folder
from tests.stage_sharing import (
    GOOD,
    NOISY,
    assert_equal_folds,
    counted_steps,
    staged,
    stored_keys,
)

TWO = staged(NOISY, GOOD)
ONE = staged(NOISY)
LONGER = {**NOISY, "epochs": 2}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    base = tmp_path_factory.mktemp("data")
    return prepare(write_competition_folder(base / "hms", 12), TWO, base)


@pytest.fixture(scope="module")
def alone(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> StoredFold:
    """Fold 0 of two stages, trained without sharing."""
    return train(TWO, prepared, tmp_path_factory.mktemp("alone"), share=False)


def task_of(experiment: Experiment, prepared: Prepared, results: Path) -> FoldTask:
    return plan_folds(experiment, prepared, results, Placement(), [0])[0]


def train(
    experiment: Experiment,
    prepared: Prepared,
    results: Path,
    share: bool = True,
    report: Callable[[dict[str, Any]], None] = lambda record: None,
) -> StoredFold:
    task = task_of(experiment, prepared, results)
    InProcessRunner(device="cpu", share_stages=share).run([task], report)
    return FoldStore(results).read(task.key)


def test_without_sharing_only_the_result_is_stored(alone: StoredFold) -> None:
    assert stored_keys(alone.weights.parents[3]) == {alone.key}
    assert alone.record["reused_stages"] is None
    assert alone.record["saved_s"] == 0


def test_finished_stages_are_stored_as_results_of_truncated_experiments(
    prepared: Prepared, tmp_path: Path, alone: StoredFold, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = FoldStore.write

    def noting(self: FoldStore, key: str, *rest: Any) -> None:
        written.append(key)
        write(self, key, *rest)

    monkeypatch.setattr(FoldStore, "write", noting)
    two = train(TWO, prepared, tmp_path / "two")
    assert written == [task_of(ONE, prepared, tmp_path).key, two.key]
    assert_equal_folds(two, alone)
    one = train(ONE, prepared, tmp_path / "one", share=False)
    assert_equal_folds(FoldStore(tmp_path / "two").read(one.key), one)


def test_one_stage_experiment_is_reused_as_first_stage_of_another(
    prepared: Prepared, tmp_path: Path, alone: StoredFold
) -> None:
    # Names change no result; the history has the names of its own experiment.
    renamed = staged({**NOISY, "name": "warmup"}).model_copy(update={"name": "other"})
    with counted_steps() as first:
        one = train(renamed, prepared, tmp_path)
    events: list[dict[str, Any]] = []
    with counted_steps() as second:
        two = train(TWO, prepared, tmp_path, report=events.append)
    assert_equal_folds(two, alone)
    n_steps = two.record["history"][-1]["step"]
    assert first[0] == one.record["history"][-1]["step"] > 0
    assert second[0] == n_steps - first[0]
    took = one.record["timing"]["train_s"] + one.record["timing"]["evaluate_s"]
    assert two.record["reused_stages"] == {"names": ["noisy"], "key": one.key}
    assert two.record["saved_s"] == took
    source = {"fold": 0, "key": two.key, "experiment": "experiment"}
    started, *events, ended = events
    assert (started["event"], ended["event"]) == ("fold_started", "fold_ended")
    assert events[0] == {
        "event": "stages_reused",
        "stages": ["noisy"],
        "saved_s": took,
        "progress": first[0] / n_steps,
        "history": two.record["history"][:2],
        **source,
    }
    assert len(events) == 5
    assert all(event.items() >= source.items() for event in events)
    assert all(event["event"] == "evaluation" for event in events[1:])
    progress = [event["progress"] for event in events]
    assert progress == sorted(progress)
    assert progress[-1] == 1
    seconds = [line["seconds"] for line in two.record["history"]]
    assert seconds == sorted(seconds)


def test_stages_whose_weights_were_freed_are_trained_again_and_stored_with_them(
    prepared: Prepared, tmp_path: Path, alone: StoredFold
) -> None:
    store, one = FoldStore(tmp_path), train(ONE, prepared, tmp_path)
    assert store.free_weights(one.key) > 0
    two = train(TWO, prepared, tmp_path)
    assert two.record["reused_stages"] is None
    assert_equal_folds(two, alone)
    assert_equal_folds(store.read(one.key), one)


def test_longest_truncation_is_reused_and_savings_add_up(
    prepared: Prepared, tmp_path: Path
) -> None:
    last = {"name": "all", "rows": "all", "epochs": 1}
    three = staged(NOISY, GOOD, last)
    one, two = train(ONE, prepared, tmp_path), train(TWO, prepared, tmp_path)
    result = run_experiment(three, prepared, tmp_path, InProcessRunner(device="cpu"), folds=[0])
    spent = [r["timing"]["train_s"] + r["timing"]["evaluate_s"] for r in (one.record, two.record)]
    record = FoldStore(tmp_path).record(result.keys[0])
    assert record["reused_stages"] == {"names": ["noisy", "good"], "key": two.key}
    assert result.saved_minutes == pytest.approx(sum(spent) / 60)
    assert result.fold_minutes == pytest.approx((record["seconds"] + sum(spent)) / 60)
    assert result.reused == ()
    off = train(three, prepared, tmp_path / "off", share=False)
    assert_equal_folds(FoldStore(tmp_path).read(off.key), off)
    again = run_experiment(three, prepared, tmp_path, InProcessRunner(device="cpu"), folds=[0])
    assert again.reused == (0,)
    assert (again.fold_minutes, again.saved_minutes) == (result.fold_minutes, result.saved_minutes)


def test_fold_stopped_between_stages_resumes_after_the_first(
    prepared: Prepared, tmp_path: Path, alone: StoredFold
) -> None:
    history = alone.record["history"]
    noisy = max(line["step"] for line in history if line["stage"] == "noisy")
    with counted_steps(stop_after=noisy + 1), pytest.raises(KeyboardInterrupt):
        train(TWO, prepared, tmp_path)
    assert not FoldStore(tmp_path).has(alone.key)
    with counted_steps() as steps:
        assert_equal_folds(train(TWO, prepared, tmp_path), alone)
    assert steps[0] == history[-1]["step"] - noisy


@pytest.mark.parametrize("normalisation", ["none", "per_image"])
def test_best_checkpoints_are_shared(
    normalisation: Any, prepared: Prepared, tmp_path: Path
) -> None:
    best = {"checkpoint": "best", "next_stage_from": "best"}
    two = staged(LONGER, GOOD, normalisation=normalisation, **best)
    one = staged(LONGER, normalisation=normalisation, **best)
    off = train(two, prepared, tmp_path / "off", share=False)
    assert_equal_folds(train(two, prepared, tmp_path / "in one go"), off)
    train(one, prepared, tmp_path / "in two")
    assert_equal_folds(train(two, prepared, tmp_path / "in two"), off)


FIRST, THEN = [0.9, 0.5, 0.7, 0.8], [0.6, 0.4]
SHORTER = {**GOOD, "epochs": 1}


def scored(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Gives the next evaluations these scores."""
    coming = iter(scores)

    def report(targets: Any, table: Any, votes: Any) -> dict[str, Any]:
        return {"kl_all": next(coming), "kl_4": None, "kl_10": None}

    monkeypatch.setattr(evaluation, "kl_report", report)


def test_resumed_stage_starts_from_the_weights_that_the_first_one_hands_on(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {}
    for handed in ("last", "best"):
        # A stage is shared whatever the last one keeps.
        choices = {"checkpoint_criterion": "kl_all", "next_stage_from": handed}
        two = staged(LONGER, SHORTER, checkpoint="best", **choices)
        one = staged(LONGER, checkpoint=handed, checkpoint_criterion="kl_all")
        scored(monkeypatch, FIRST + THEN)
        off = train(two, prepared, tmp_path / "off", share=False)
        scored(monkeypatch, FIRST)
        first = train(one, prepared, tmp_path)
        scored(monkeypatch, THEN)
        shared = train(two, prepared, tmp_path)
        assert shared.record["reused_stages"] == {"names": ["noisy"], "key": first.key}
        assert_equal_folds(shared, off)
        stored[handed] = first, shared
    for one, other in zip(*stored.values(), strict=True):
        assert one.key != other.key
        assert one.weights.read_bytes() != other.weights.read_bytes()


@pytest.mark.parametrize(
    ("name", "reason", "lost"),
    [
        ("weights.pt", "weights.pt does not match its checksum", {}),
        ("oof.parquet", "oof.parquet does not match its checksum", {}),
        ("record.json", "record.json without what training resumes from", {"history": None}),
        ("record.json", "record.json without what training resumes from", {"timing": {}}),
    ],
)
def test_damaged_stage_is_set_aside_and_trained_again(
    name: str,
    reason: str,
    lost: dict[str, Any],
    prepared: Prepared,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = train(ONE, prepared, tmp_path).weights.parent
    if name == "record.json":
        record = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**record, **lost}))
    else:
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    shared = train(TWO, prepared, tmp_path)
    assert shared.record["reused_stages"] is None
    assert reason in caplog.text
    (aside,) = (FoldStore(tmp_path).root / "damaged").iterdir()
    assert aside.name.startswith(folder.name)
    assert FoldStore(tmp_path).read(folder.name), "the stage was stored again"


AS_GOOD: list[tuple[str, Any]] = [
    ("name", "other"),
    ("training.stages.0.name", "other"),
    ("training.stages.1.name", "other"),
    ("training.stages.1.rows", "all"),
    ("training.stages.1.epochs", 5),
    ("training.stages.1.learning_rate", 0.5),
    ("training.stages.1.loss", "kl"),
    ("training.stages.1.augment", {}),
    ("training.learning_rate", 0.5),  # the first stage has its own
    ("training.checkpoint", "best"),  # of the last stage
    ("training.checkpoint_criterion", "kl_10"),  # chooses nothing
]
OTHER: list[tuple[str, Any]] = [
    ("training.seed", 1),
    ("training.batch_size", 9),
    ("training.stage_threshold", 5),
    ("training.unanimous_from", 4),
    ("training.weight_decay", 0.5),
    ("training.schedule", "constant"),
    ("training.next_stage_from", "best"),
    ("training.precision", "float64"),
    ("training.loss", "kl_capped_votes"),  # what the first stage inherits
    ("training.augment", {"cutmix": {}}),
    ("training.stages.0.rows", "all"),
    ("training.stages.0.epochs", 2),
    ("training.stages.0.loss", "kl_log_votes"),
    ("training.stages.0.learning_rate", 0.02),
    ("training.stages.0.augment", {"cutmix": {}}),
    ("input.normalisation", "per_image"),
    ("model.dropout", 0.1),
]


@pytest.mark.parametrize(
    ("path", "value", "shared"), [(*p, True) for p in AS_GOOD] + [(*p, False) for p in OTHER]
)
def test_only_experiments_equal_up_to_a_stage_share_it(
    path: str, value: Any, shared: bool, prepared: Prepared, tmp_path: Path
) -> None:
    first = task_of(TWO, prepared, tmp_path).truncated(1)
    other = task_of(replace_values(TWO, {path: value}), prepared, tmp_path).truncated(1)
    assert (first.key == other.key) is shared
    assert other.key == task_of(other.experiment, prepared, tmp_path).key


def test_each_stage_is_wrapped_and_resumed_ones_load_no_pretrained_weights(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped, built = [], []
    wrap, build = Process.wrap, fold_training.build_model

    def noting(self: Process, model: Any) -> Any:
        wrapped.append(model)
        return wrap(self, model)

    def building(config: ModelConfig, *image: Any) -> Any:
        built.append(config)
        return build(config.model_copy(update={"pretrained": False, "weights_file": None}), *image)

    monkeypatch.setattr(Process, "wrap", noting)
    monkeypatch.setattr(fold_training, "build_model", building)
    (tmp_path / "w.pt").write_bytes(b"weights")
    model = {"model.pretrained": True, "model.weights_file": str(tmp_path / "w.pt")}
    one, two = (replace_values(experiment, model) for experiment in (ONE, TWO))
    train(one, prepared, tmp_path / "in two")
    train(two, prepared, tmp_path / "in two")
    train(two, prepared, tmp_path / "in one go")
    # Before each evaluation: two per epoch, and the stages have one and two epochs.
    assert len(wrapped) == 2 + 4 + 6
    assert len(set(map(id, wrapped))) == 3
    assert [config.weights_file is not None for config in built] == [True, False, True]
    assert [config.pretrained for config in built] == [True, False, True]
