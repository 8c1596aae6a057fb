from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.experiment import Experiment, ModelConfig
from hms_ray.config.pruning import PruneConfig
from hms_ray.dataset.prepare import Prepared
from hms_ray.evaluate.metric import kl_rows
from hms_ray.evaluate.oof import make_oof
from hms_ray.experiment.fold_task import FoldTask, Report
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import AfterFold, run_experiment
from hms_ray.search.pruner import Pruner, patients_of, sums_of_fold
from hms_ray.storage.fold_store import FoldStore

N = 60
RNG = np.random.default_rng(0)


def study_rows() -> pd.DataFrame:
    patients = np.arange(N) // 2
    rows = pd.DataFrame(
        {
            "row_id": [f"{number}-0" for number in range(N)],
            "eeg_id": np.arange(N),
            "patient_id": patients,
            "total_votes": RNG.integers(1, 20, N),
            "fold": patients % 3,
        }
    )
    rows[list(TARGET_COLUMNS)] = RNG.dirichlet(np.ones(6), N)
    return rows


EXPERIMENT = Experiment(model=ModelConfig(pretrained=False))
ROWS = study_rows()
PROBABILITIES = RNG.dirichlet(np.ones(6), N)


def test_sums_of_the_folds_of_a_trial_are_those_of_its_rows() -> None:
    patients = patients_of(ROWS, "kl_10")
    found = np.zeros(len(patients.sizes))
    for fold in range(3):
        of_fold = (ROWS["fold"] == fold).to_numpy()
        oof = make_oof(ROWS[of_fold], fold, PROBABILITIES[of_fold]).sample(frac=1, random_state=1)
        found += sums_of_fold(oof, fold, ROWS, patients)
    scores = kl_rows(ROWS[list(TARGET_COLUMNS)].to_numpy(), PROBABILITIES)
    np.testing.assert_allclose(found, patients.sums(scores))
    assert found.sum() == pytest.approx(scores[ROWS["total_votes"] >= 10].sum())


def fold_sums(scores: np.ndarray, fold: int) -> np.ndarray:
    return patients_of(ROWS, "kl_all").sums(np.where(ROWS["fold"] == fold, scores, 0.0))


def test_pruner_reports_comparable_estimates_and_own_scores() -> None:
    pruner = Pruner(PruneConfig(min_trials=1), patients_of(ROWS, "kl_all"))
    best, trial = RNG.random(N), RNG.random(N) + 5
    assert not pruner.after_fold(0, 0, fold_sums(best, 0)).stop
    pruner.add_finished(0, best)
    found = pruner.after_fold(1, 0, fold_sums(trial, 0))
    of_fold = (ROWS["fold"] == 0).to_numpy()
    report = pruner.reports(1)[0]
    assert report.score == pytest.approx(trial[of_fold].mean())
    assert report.estimate == pytest.approx(best.mean() + (trial - best)[of_fold].mean())
    assert found.stop
    # Its process was lost and it starts again: nothing is counted twice.
    pruner.after_fold(1, 0, fold_sums(trial, 0))
    pruner.after_fold(1, 1, fold_sums(trial, 1))
    assert [one.n_folds for one in pruner.reports(1)] == [1, 2]
    both = (ROWS["fold"] < 2).to_numpy()
    assert pruner.reports(1)[1].estimate == pytest.approx(best.mean() + (trial - best)[both].mean())


class StoringRunner:
    """Writes a result for each task; notes what it trained."""

    placement = Placement(world_size=1, device_class="cpu")

    def __init__(self) -> None:
        self.trained: list[int] = []

    def run(
        self, tasks: Sequence[FoldTask], report: Report, after_fold: AfterFold | None = None
    ) -> None:
        for task in tasks:
            rows = task.prepared.rows()
            rows = rows[rows["fold"] == task.fold]
            oof = make_oof(rows, task.fold, np.full((len(rows), 6), 1 / 6))
            record = {"seconds": 60.0, "saved_s": 0.0, "optimistic": False}
            FoldStore(task.results).write(task.key, oof, record, lambda path: path.write_bytes(b""))
            self.trained.append(task.fold)
            if after_fold is not None and not after_fold(task):
                return


@pytest.mark.parametrize("stored", [[], [0], [1], [2], [0, 1], [0, 1, 2]])
def test_folds_are_asked_in_order_whether_stored_or_trained(
    tmp_path: Path, prepared: Prepared, stored: list[int]
) -> None:
    ROWS.to_parquet(tmp_path / "three.parquet")
    three = replace(prepared, rows_file=tmp_path / "three.parquet", n_folds=3)
    if stored:
        run_experiment(EXPERIMENT, three, tmp_path, StoringRunner(), folds=stored)
    asked: list[int] = []

    def continues(fold: int, oof: pd.DataFrame) -> bool:
        assert set(oof["fold"]) == {fold}
        asked.append(fold)
        return fold < 1

    runner = StoringRunner()
    result = run_experiment(EXPERIMENT, three, tmp_path, runner, continues=continues)
    assert (asked, result.stopped, list(result.keys)) == ([0, 1], True, [0, 1])
    assert runner.trained == [fold for fold in (0, 1) if fold not in stored]
    assert set(result.oof["fold"]) == {0, 1}
    assert result.fold_minutes == 2
    whole = run_experiment(
        EXPERIMENT, three, tmp_path, StoringRunner(), continues=lambda fold, oof: fold != 2
    )
    assert (whole.stopped, list(whole.keys)) == (False, [0, 1, 2])
