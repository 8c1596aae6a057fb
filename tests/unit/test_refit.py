"""A trial's experiment trained on all rows but the hold-out, and its models in use."""

import json
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hms_ray.blend.export import ExportOptions, export
from hms_ray.blend.holdout import HoldoutOptions, open_holdout
from hms_ray.blend.submit import submit
from hms_ray.competition.schema import PROBABILITY_COLUMNS
from hms_ray.errors import ConfigError, DataError, StudyError, TrainingError
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.refit import kept_epochs, refit_epochs
from hms_ray.predict.submit_trial import SubmitOptions
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.refit import closings, read_refit
from hms_ray.study.refit_run import RefitOptions, run_refit
from hms_ray.train.fold_state import FoldState, state_bytes, state_from
from hms_ray.train.loop import train_fold
from hms_ray.train.process import Process
from tests.fold_data import example_experiment, example_fold
from tests.refused import refusal
from tests.trained_study import TrainedStudy, train_study, write_test_set

pytestmark = pytest.mark.usefixtures("one_process")


class Trainer:
    """Trains in this process; keeps the tasks that it was given."""

    def __init__(self, fails: bool = False) -> None:
        self._runner, self._fails = InProcessRunner(device="cpu"), fails
        self.tasks: list[FoldTask] = []
        self.events: list[dict[str, Any]] = []

    @property
    def placement(self) -> Placement:
        return self._runner.placement

    def train(self, tasks: Sequence[FoldTask], progress: Any) -> dict[str, str]:
        self.tasks = list(tasks)
        if self._fails:
            return {tasks[0].experiment.name: "no memory"}
        self._runner.run(tasks, lambda event: self.events.append(event) or progress.update(event))
        return {}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TrainedStudy:
    values = {
        "data.holdout": 0.4,
        "training.checkpoint": "best",
        "training.stages": [{"epochs": 3, "learning_rate": 0.01}],
    }
    return train_study(tmp_path_factory.mktemp("refit"), values=values)


@pytest.fixture
def study(made: TrainedStudy, tmp_path: Path) -> TrainedStudy:
    shutil.copytree(made.results, tmp_path / "results")
    return replace(made, results=tmp_path / "results")


def refit(study: TrainedStudy, trainer: Trainer | None = None, **options: Any) -> str:
    chosen: dict[str, Any] = {"data_dir": study.data, "results": study.results, **options}
    return run_refit(study.folder, RefitOptions(**chosen), nullcontext(trainer or Trainer()))


def history(*stages: list[tuple[float, float | None]]) -> list[dict[str, Any]]:
    return [
        {"stage_index": index, "epoch": epoch, **({} if kl is None else {"criterion": kl})}
        for index, stage in enumerate(stages)
        for epoch, kl in stage
    ]


def test_the_epochs_of_a_refit_are_the_median_of_the_folds() -> None:
    last = [(0.5, None), (1.0, None), (1.5, None), (2.0, None)]
    best = [
        history(last, [(0.5, 0.9), (1.0, kl), (1.5, 0.5), (2.0, 0.8)]) for kl in (0.4, 0.6, 0.7)
    ]
    assert [kept_epochs(one) for one in best] == [[2.0, 1.0], [2.0, 1.5], [2.0, 1.5]]
    assert refit_epochs(best) == (2.0, 1.5)
    # Between 1 and 1.5: up to the next evaluation.
    assert refit_epochs(best[:2]) == (2.0, 1.5)


@pytest.mark.parametrize("end", [1.5, 2.0])
def test_a_refit_has_the_weights_that_its_schedule_has_at_that_epoch(end: float) -> None:
    experiment = example_experiment(epochs=3, checkpoint="best", learning_rate=0.01)
    data = example_fold()
    at: dict[float, dict[str, Any]] = {}

    def note(make_state: Any) -> None:
        state: FoldState = make_state()
        at[state.epoch] = {name: value.clone() for name, value in state.weights.items()}

    train_fold(experiment, data, 5, Process(), on_evaluation=note)
    alone = replace(data, valid=data.valid[:0], scored=False)
    reports: list[dict[str, Any]] = []
    process = Process(report=reports.append)
    result = train_fold(experiment, alone, 5, process, epochs=(end,))
    assert result.weights.keys() == at[end].keys()
    for name, weight in result.weights.items():
        np.testing.assert_array_equal(weight.numpy(), at[end][name].numpy())
    assert [record["epoch"] for record in result.history] == [0.5, 1.0, 1.5, 2.0][: int(2 * end)]
    assert reports[-1]["progress"] == 1.0
    assert {record["kl_all"] for record in result.history} == {None}
    assert not result.optimistic
    stored: list[bytes] = []

    def keep(make_state: Any) -> None:
        stored.append(state_bytes(make_state(), {}))

    train_fold(experiment, alone, 5, Process(), on_evaluation=keep, epochs=(end,))
    assert len(stored) == 2 * end - 1
    for content in stored:
        state, _ = state_from(content)
        resumed = train_fold(experiment, alone, 5, Process(), state, epochs=(end,))
        for name, weight in resumed.weights.items():
            np.testing.assert_array_equal(weight.numpy(), at[end][name].numpy())


def test_models_on_all_rows_are_stored_without_a_score(study: TrainedStudy) -> None:
    trainer = Trainer()
    text = refit(study, trainer, seeds=2)
    trial = study.folder.finished_trial()
    found = read_refit(trial.path)
    assert found is not None
    store = FoldStore(study.results)
    ends = [tuple(kept_epochs(store.record(key)["history"])) for key in trial.keys.values()]
    assert found.fold_epochs == dict(enumerate(ends))
    assert found.folds == trial.keys
    assert list(found.keys) == [0, 1001]
    assert not found.with_holdout
    assert f"epochs by stage: {found.epochs[0]:g}" in text
    assert "No score" in text
    assert "KL" not in text
    rows = study.prepared.rows()
    assert found.n_rows == len(rows)
    for key in found.keys.values():
        stored = store.read(key)
        assert stored.has_weights
        assert stored.oof.empty
        kl = {record[name] for record in stored.record["history"] for name in ("kl_all", "kl_10")}
        assert kl == {None}
        assert stored.record["history"][-1]["epoch"] == found.epochs[0]
        assert stored.record["made_from"]["refit"] == list(found.epochs)
    assert {event["all_rows"] for event in trainer.events} == {True}
    again = Trainer()
    assert "2 reused from the fold store" in refit(study, again, seeds=2)
    assert again.tasks == []


def test_submissions_by_the_models_on_all_rows(study: TrainedStudy, tmp_path: Path) -> None:
    refit(study, seeds=2)
    tests = write_test_set(tmp_path / "test")
    target = f"{study.name}/0000"

    def submitted(target: str, models: Any = "folds") -> tuple[np.ndarray, str]:
        out = tmp_path / "out.csv"
        options = SubmitOptions(data_dir=tests, results=study.results, out=out, models=models)
        text = submit(target, options)
        return pd.read_csv(out)[list(PROBABILITY_COLUMNS)].to_numpy(), text

    folds, _ = submitted(target)
    alone, text = submitted(target, "refit")
    assert f"mean of 2 models on all rows of {study.name} 0000" in text
    both, text = submitted(target, "both")
    assert "mean of 2 folds and 2 models on all rows" in text
    np.testing.assert_allclose(both, (2 * folds + 2 * alone) / 4, rtol=1e-12)
    assert np.abs(folds - alone).max() > 1e-4
    place = tmp_path / "export"
    export(target, ExportOptions(out=place, results=study.results, wheel=False, models="both"))
    assert "2 folds and 2 models on all rows" in (place / "README.md").read_text()
    exported, text = submitted(str(place))
    np.testing.assert_allclose(exported, both, rtol=1e-12)
    assert "2 folds and 2 models on all rows" in text
    with refusal(ConfigError, "--models needs a study", got=str(place), fix="Omit it"):
        submitted(str(place), "refit")


def test_models_on_all_rows_must_be_trained_before_they_are_used(
    study: TrainedStudy, tmp_path: Path
) -> None:
    tests = write_test_set(tmp_path / "test")
    options = SubmitOptions(data_dir=tests, results=study.results, models="refit")
    rule = "models on all rows must be trained before they are used"
    where = f"{study.name} 0000"
    with refusal(StudyError, rule, got="none", where=where, fix="hms-ray refit"):
        submit(study.name, options)
    with refusal(TrainingError, "every model of a refit must be trained", got="no memory"):
        refit(study, Trainer(fails=True))
    with refusal(StudyError, "a fold must be in the store", fix=f"hms-ray refit {study.name}"):
        submit(study.name, options)


def test_training_on_the_hold_out_closes_it_for_good(study: TrainedStudy) -> None:
    held_out = study.folder.held_out_rows()
    assert held_out is not None
    # Recorded before training starts, so that a failure does not open it again.
    with refusal(TrainingError, "every model of a refit must be trained"):
        refit(study, Trainer(fails=True), with_holdout=True)
    (closed,) = closings(study.folder)
    assert closed["trial"] == 0
    with refusal(
        StudyError,
        "a hold-out must not have been trained on",
        got="a refit of trial 0000 with --with-holdout",
        where="holdout_closed.json",
        fix="data.holdout_seed=1",
    ):
        open_holdout(study.folder, HoldoutOptions(results=study.results, device="cpu"))
    trainer = Trainer()
    text = refit(study, trainer, with_holdout=True)
    (task,) = trainer.tasks
    rows = task.prepared.rows()
    expected = {*study.prepared.rows()["row_id"], *held_out["row_id"]}
    assert set(rows["row_id"]) == expected
    assert f"all {len(expected)} rows, hold-out included" in text
    found = read_refit(study.folder.finished_trial().path)
    assert found is not None
    assert (found.n_rows, found.with_holdout) == (len(expected), True)
    assert len(closings(study.folder)) == 2


def test_other_data_and_absent_hold_outs_are_refused(
    study: TrainedStudy, tmp_path: Path, two_patients_with_eegs: Path
) -> None:
    rule = "the competition folder must have the rows of the study"
    place = str(two_patients_with_eegs)
    with refusal(DataError, rule, got="others", where=place, fix="--data DIR"):
        refit(study, data_dir=two_patients_with_eegs)
    assert read_refit(study.folder.finished_trial().path) is None
    file = study.folder.path / "study.json"
    content = json.loads(file.read_text())
    del content["identity"]["data"]["holdout"]
    file.write_text(json.dumps(content))
    with refusal(StudyError, "the study must have a hold-out"):
        refit(study, with_holdout=True)
    with refusal(ConfigError, "--seeds must be at least 1", fix="Use --seeds 1."):
        refit(study, seeds=0)
