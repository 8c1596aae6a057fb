"""Which evaluation of a stage is kept, handed to the next stage and scored."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.augmentation import AugmentConfig, MosaicConfig
from hms_ray.config.experiment import Experiment
from hms_ray.config.loading import validate_space
from hms_ray.config.training import StageConfig, TrainingConfig
from hms_ray.dataset.prepare import prepare
from hms_ray.errors import ConfigError
from hms_ray.evaluate.metric import kl_report, kl_rows
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.run import run_experiment
from hms_ray.ladder.steps import load_ladder
from hms_ray.storage.fold_store import FoldStore
from hms_ray.train import evaluation
from hms_ray.train.loop import train_fold
from hms_ray.train.process import Process
from hms_ray.train.result import FoldResult
from hms_ray.train.selection import EvaluationSelection, kept_record
from tests.competition_folder import write_competition_folder
from tests.fold_data import example_experiment, example_fold
from tests.refused import refusal

DATA = example_fold()
NOISY = StageConfig(name="noisy", rows="below_threshold", epochs=2, learning_rate=0.01)
GOOD = StageConfig(name="good", rows="at_least_threshold", epochs=2, learning_rate=0.01)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def with_mosaic(epochs: int | None, mosaic_epochs: int | None, probability: float = 1.0) -> Any:
    mosaic = MosaicConfig(probability=probability, epochs=mosaic_epochs)
    return StageConfig(epochs=epochs, augment=AugmentConfig(mosaic=mosaic))


@pytest.mark.parametrize("seed", range(5))
def test_published_choice_of_a_table_of_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    epochs, mosaic_epochs = [6, 8, 6], [2, 3, 0]
    # Few different scores, so that many are equal; each stage is worse than the one before.
    tables = [rng.integers(0, 4, (n, 2)) / 10 + stage for stage, n in enumerate(epochs)]
    for table, n in zip(tables, mosaic_epochs, strict=True):
        table[:n] -= 0.5
    training = TrainingConfig(
        stages=[
            with_mosaic(n, n_mosaic) if n_mosaic else StageConfig(epochs=n)
            for n, n_mosaic in zip(epochs, mosaic_epochs, strict=True)
        ],
        checkpoint="best",
        next_stage_from="best",
    )
    history: list[dict[str, Any]] = []
    for index, stage in enumerate(training.resolved_stages()):
        selection: EvaluationSelection[tuple[int, int]] = EvaluationSelection(stage)
        for epoch, half in np.ndindex(tables[index].shape):
            counted = selection.update(
                epoch,
                float(tables[index][epoch, half]),
                lambda place=(epoch, half): place,
                ends=(epoch, half) == (stage.epochs - 1, 1),
            )
            history.append({"stage_index": index, "place": (epoch, half), "criterion": counted})
        allowed = tables[index].copy()
        allowed[: mosaic_epochs[index]] = np.inf
        published = np.unravel_index(np.argmin(allowed), allowed.shape)
        assert selection.kept == published
        assert kept_record(history)["place"] == published


def test_last_evaluation_is_kept_whatever_its_score() -> None:
    selection: EvaluationSelection[int] = EvaluationSelection(TrainingConfig().resolved_stages()[0])
    history = []
    for number, score in enumerate([0.5, 0.1, 0.9]):
        state = iter([number])
        criterion = selection.update(number, score, state.__next__, ends=number == 2)
        history.append({"stage_index": 0, "criterion": criterion, "number": number})
    assert selection.kept == kept_record(history)["number"] == 2
    assert [record["criterion"] for record in history] == [None] * 3


@pytest.mark.parametrize(
    ("stages", "training", "refused"),
    [
        ([with_mosaic(2, 2)], {"checkpoint": "best"}, True),
        ([with_mosaic(2, None)], {"checkpoint": "best"}, True),
        ([with_mosaic(2, None, probability=0.3)], {"checkpoint": "best"}, True),
        ([with_mosaic(2, 9), GOOD], {"next_stage_from": "best"}, True),
        ([with_mosaic(2, 1)], {"checkpoint": "best"}, False),
        ([with_mosaic(2, None, probability=0.0)], {"checkpoint": "best"}, False),
        ([with_mosaic(2, 2)], {"next_stage_from": "best"}, False),
        ([with_mosaic(2, 9), GOOD], {"checkpoint": "best"}, False),
    ],
)
def test_stage_without_an_evaluation_to_choose_is_refused(
    stages: Any, training: dict[str, str], refused: bool
) -> None:
    data = {"stages": [stage.model_dump() for stage in stages], **training}
    if not refused:
        validate_space({"experiment": {"training": data}}, "a file")
        return
    rule = "needs an epoch without mosaic, got mosaic in all 2 epochs of stage train; set augment"
    with refusal(ConfigError, rule, where="a file"):
        validate_space({"experiment": {"training": data}}, "a file")


def two_stages(**training: Any) -> Experiment:
    return example_experiment(stages=(NOISY, GOOD), stage_threshold=8, **training)


def train(
    experiment: Experiment, ends: list[FoldResult] | None = None, fold: int = 0
) -> FoldResult:
    on_stage_end = (lambda result: None) if ends is None else ends.append
    return train_fold(experiment, DATA, fold, Process(), on_stage_end=on_stage_end)


class Scores:
    """Records the tables of all evaluations, and scores them as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stage: list[float], whole: list[float]):
        self.tables: list[Any] = []
        self.rows: list[int] = []
        self._stage, self._whole = stage, whole
        monkeypatch.setattr(evaluation, "kl_report", self.report)
        monkeypatch.setattr(evaluation, "kl_divergence", self.divergence)

    def report(self, targets: Any, table: Any, votes: Any) -> dict[str, Any]:
        self.tables.append(table)
        score = self._whole[len(self.tables) - 1]
        return {"kl_all": score, "kl_4": -score, "kl_10": score}

    def divergence(self, targets: Any, table: Any) -> float:
        self.rows.append(len(table))
        return self._stage[len(self.tables) - 1]


STAGE = [0.5, 0.3, 0.4, 0.6, 0.9, 0.8, 0.7, 0.7]
WHOLE = [0.2, 0.4, 0.5, 0.5, 0.9, 1.0, 1.3, 1.2]


def test_last_stage_is_kept_in_every_fold_even_if_it_is_worse_on_all_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for fold in range(3):
        scores = Scores(monkeypatch, STAGE, WHOLE)
        result = train(two_stages(checkpoint="best"), fold=fold)
        assert np.array_equal(result.probabilities, scores.tables[6])
        assert result.optimistic
        kept = kept_record(result.history)
        assert (kept["stage"], kept["epoch"], kept["criterion"]) == ("good", 1.5, 0.7)
        assert "criterion" not in result.history[0]
        n_good = int((DATA.total_votes[DATA.valid] >= 8).sum())
        assert scores.rows == [n_good] * 4


@pytest.mark.parametrize(
    ("criterion", "kept"), [("kl_all", 4), ("kl_4", 6), ("kl_10", 4), ("stage_rows", 6)]
)
def test_criterion_chooses(criterion: Any, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = Scores(monkeypatch, STAGE, WHOLE)
    result = train(two_stages(checkpoint="best", checkpoint_criterion=criterion))
    assert np.array_equal(result.probabilities, scores.tables[kept])
    assert [record["criterion"] for record in result.history[4:]] == {
        "kl_4": [-score for score in WHOLE[4:]],
        "stage_rows": STAGE[4:],
    }.get(criterion, WHOLE[4:])


def test_mosaic_epochs_are_scored_but_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = Scores(monkeypatch, STAGE[:4], WHOLE[:4])
    stage = with_mosaic(2, 1)
    result = train(example_experiment(stages=(stage,), checkpoint="best"))
    assert np.array_equal(result.probabilities, scores.tables[2])
    assert [record["criterion"] for record in result.history] == [None, None, 0.4, 0.6]


def test_criterion_is_the_kl_on_the_stage_rows() -> None:
    result = train(two_stages(checkpoint="best"))
    good = DATA.total_votes[DATA.valid] >= 8
    kl = kl_rows(DATA.targets[DATA.valid], result.probabilities)
    assert kept_record(result.history)["criterion"] == pytest.approx(kl[good].mean(), rel=1e-12)
    assert kl[good].mean() != pytest.approx(kl.mean(), rel=1e-3)


def test_next_stage_starts_from_the_best_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[FoldResult] = []
    results = {}
    for choice in ("last", "best"):
        scores = Scores(monkeypatch, STAGE, WHOLE)
        results[choice] = train(two_stages(next_stage_from=choice), ends)
        assert np.array_equal(ends[-1].probabilities, scores.tables[3 if choice == "last" else 1])
        assert ends[-1].optimistic is results[choice].optimistic is (choice == "best")
    last, best = ends
    name = "conv_stem.weight"
    assert not torch.equal(last.weights[name], best.weights[name])
    assert not torch.equal(results["last"].weights[name], results["best"].weights[name])
    # Stage 1 is the same; stage 2 trains the same batches from other weights.
    assert [r["train_loss"] for r in results["last"].history[:4]] == [
        r["train_loss"] for r in results["best"].history[:4]
    ]
    Scores(monkeypatch, STAGE[4:], WHOLE[4:])
    resumed = train_fold(two_stages(), DATA, 0, Process(), resume_from=best)
    assert torch.equal(resumed.weights[name], results["best"].weights[name])


def test_fold_without_rows_to_choose_from_is_refused_before_training() -> None:
    threshold = int(DATA.total_votes[DATA.valid].max()) + 1
    assert (DATA.total_votes[DATA.train] >= threshold).any()
    stages = {"stages": (NOISY, GOOD), "stage_threshold": threshold}
    train(example_experiment(**stages))
    with refusal(ConfigError, "needs validation rows of its own", where="fold 2, stage good"):
        train(example_experiment(**stages, checkpoint="best"), fold=2)


def test_small_step_9_keeps_the_second_stage_in_every_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ladder = Path(__file__).parents[2] / "search_spaces" / "ladder"
    published = ["training.checkpoint=best", "training.next_stage_from=best"]
    short = ["data.n_patients=12", "training.stages.0.epochs=3", "training.stages.1.epochs=2"]
    (experiment,) = (
        load_ladder(
            ladder / "ladder.yaml", ladder / "small.yaml", [*published, *short], ["9_panels_5u"]
        )
        .experiments()
        .values()
    )
    # Starting a process takes longer than these windows.
    monkeypatch.setattr("hms_ray.pack.build.default_workers", lambda: 1)
    data = write_competition_folder(tmp_path / "hms")
    prepared = prepare(data, experiment, tmp_path / "results")
    measured, worse = kl_report, itertools.count()

    def worse_each_time(targets: Any, table: Any, votes: Any) -> dict[str, Any]:
        return {**measured(targets, table, votes), "kl_all": 2.0 + next(worse)}

    monkeypatch.setattr(evaluation, "kl_report", worse_each_time)
    runner = InProcessRunner(device="cpu")
    result = run_experiment(experiment, prepared, tmp_path / "results", runner)
    assert result.optimistic
    store = FoldStore(tmp_path / "results")
    assert list(result.keys) == [0, 1, 2]
    for key in result.keys.values():
        stored = store.read(key)
        history = stored.record["history"]
        kept = kept_record(history)
        assert (kept["stage"], kept["stage_index"]) == ("good", 1)
        rows = prepared.rows().set_index("row_id").loc[stored.oof["row_id"]]
        kl = kl_rows(rows[list(TARGET_COLUMNS)], probabilities_of(stored.oof))
        votes = rows["total_votes"].to_numpy()
        unanimous = rows[list(TARGET_COLUMNS)].to_numpy().max(axis=1) == 1
        good = (votes >= 5) | (votes >= 4) & unanimous
        assert kept["criterion"] == pytest.approx(kl[good].mean(), rel=1e-9)
        noisy = [record for record in history if record["stage"] == "noisy"]
        assert all((record["criterion"] is None) == (record["epoch"] <= 2) for record in noisy)
