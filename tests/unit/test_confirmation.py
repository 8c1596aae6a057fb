"""The best trials trained again with new seeds: which runs, and how they are ranked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hms_ray.cli.main import main
from hms_ray.competition.schema import PROBABILITY_COLUMNS, TARGET_COLUMNS
from hms_ray.dataset.prepare import PackRef, Prepared
from hms_ray.experiment.run import ExperimentResult
from hms_ray.storage.run_log import WorkerLogs
from hms_ray.study.confirmation import ConfirmedRuns, confirmed_trials, missing_runs
from hms_ray.study.folder import StudyFolder
from hms_ray.study.new import create_study
from hms_ray.sweep import trial_actor as sweep_trial
from hms_ray.sweep.run_faults import RunFaults
from hms_ray.sweep.run_list import RunList
from hms_ray.sweep.trial_actor import StudyJob, run_trial
from hms_ray.sweep.tune_searcher import LOST
from tests.study_data import make_result, make_space

SPACE = make_space()
N_ROWS = 40


def prepared_study(folder: Path) -> Prepared:
    rng = np.random.default_rng(1)
    rows = pd.DataFrame(
        {
            "row_id": [f"{n}-0" for n in range(N_ROWS)],
            "eeg_id": range(N_ROWS),
            "patient_id": np.arange(N_ROWS) // 4,
            "total_votes": np.where(np.arange(N_ROWS) % 3 == 0, 5, 12),
            "fold": np.arange(N_ROWS) // 4 % 2,
        }
    )
    rows[list(TARGET_COLUMNS)] = rng.dirichlet(np.ones(6), N_ROWS)
    rows.to_parquet(folder / "rows.parquet")
    packs = {"kaggle": PackRef(folder / "pack", "p" * 64)}
    return Prepared(folder / "rows.parquet", packs, "r" * 64, "f" * 64, 2)


def kl(rows: pd.DataFrame, probabilities: np.ndarray) -> np.ndarray:
    targets = rows[list(TARGET_COLUMNS)].to_numpy()
    return (targets * np.log(targets / probabilities)).sum(axis=1)


def result_of(rows: pd.DataFrame, noise: float, seed: int) -> ExperimentResult:
    """Targets mixed with noise; the score is that of plain NumPy."""
    drawn = np.random.default_rng(seed).dirichlet(np.ones(6), len(rows))
    probabilities = (1 - noise) * rows[list(TARGET_COLUMNS)].to_numpy() + noise * drawn
    oof = rows[["row_id", "eeg_id", "patient_id", "fold"]].copy()
    oof[list(PROBABILITY_COLUMNS)] = probabilities
    score = float(kl(rows, probabilities)[(rows["total_votes"] >= 10).to_numpy()].mean())
    scores = {"kl_all": 1.0, "kl_4": 1.0, "kl_10": score}
    return replace(make_result(0.0), scores=scores, oof=oof)


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    """Four trials; by their scores in the search the order is 0, 1, 2, 3."""
    folder = create_study(tmp_path / "results", "one", SPACE, prepared_study(tmp_path))
    for number in range(4):
        result = result_of(folder.rows(), 0.5, number)
        scores = make_result(0.1 + number / 100).scores
        folder.write_trial(number, {}, SPACE.experiment, replace(result, scores=scores))
    return folder


def confirm(study: StudyFolder, n_best: int, n_seeds: int) -> dict[tuple[int, int], Any]:
    """Finishes the missing runs; trial 1 is the best one with new seeds."""
    rows, done = study.rows(), {}
    for run in missing_runs(study, n_best, n_seeds):
        seed = run.experiment.training.seed
        noise = {0: 0.6, 1: 0.3, 2: 0.5}[run.number]
        result = result_of(rows, noise, 100 * run.number + seed)
        ConfirmedRuns(study.path, seed).write_trial(run.number, run.point, run.experiment, result)
        done[run.number, seed] = result
    return done


def test_the_best_trials_get_new_seeds_and_stored_runs_are_not_repeated(
    study: StudyFolder,
) -> None:
    runs = missing_runs(study, 2, 3)
    assert [run.number for run in runs] == [0, 1, 0, 1, 0, 1], "one seed of all trials first"
    own = SPACE.experiment.training.seed
    seeds = [run.experiment.training.seed for run in runs]
    assert seeds == [own + 1_001] * 2 + [own + 1_002] * 2 + [own + 1_003] * 2
    changed = runs[0].experiment.training.model_copy(update={"seed": own})
    assert changed == SPACE.experiment.training, "nothing but the seed differs"
    confirm(study, 2, 2)
    left = [(run.number, run.experiment.training.seed - own) for run in missing_runs(study, 2, 3)]
    assert left == [(0, 1_003), (1, 1_003)]
    failed = missing_runs(study, 3, 1)
    ConfirmedRuns(study.path, own + 1_001).write_failure(2, {}, SPACE.experiment, "no luck")
    assert missing_runs(study, 3, 1) == failed, "a failed run is trained again"
    assert [trial.number for trial in study.finished_trials()] == [0, 1, 2, 3]
    assert missing_runs(study, 0, 0) == []
    study.write_trial(4, {}, SPACE.experiment, make_result(0.01))
    assert [run.number for run in missing_runs(study, 1, 1)] == [4], "the best, not the first"


def test_trials_are_ranked_by_their_new_seeds_alone(study: StudyFolder) -> None:
    done = confirm(study, 3, 3)
    found = confirmed_trials(study)
    assert [trial.number for trial in found] == [1, 2, 0]
    assert [trial.searched for trial in found] == pytest.approx([0.11, 0.12, 0.10])
    rows = study.rows()
    counted = (rows["total_votes"] >= 10).to_numpy()
    for trial in found:
        scores = [r.scores["kl_10"] for (n, _), r in done.items() if n == trial.number]
        assert sorted(trial.scores.values()) == pytest.approx(sorted(scores))
        assert trial.mean == pytest.approx(np.mean(scores))
        assert trial.deviation == pytest.approx(np.std(scores, ddof=1))
    # The difference of trial 2 and its interval, by plain NumPy.
    differences = np.stack(
        [
            kl(rows, done[2, seed].oof[list(PROBABILITY_COLUMNS)].to_numpy())[counted]
            - kl(rows, done[1, seed].oof[list(PROBABILITY_COLUMNS)].to_numpy())[counted]
            for seed in sorted({seed for _, seed in done})
        ]
    )
    mean, patients = differences.mean(axis=0), rows["patient_id"].to_numpy()[counted]
    sums = np.array([(mean - mean.mean())[patients == p].sum() for p in np.unique(patients)])
    n, n_patients = counted.sum(), len(sums)
    clustered = n_patients / (n_patients - 1) * (sums**2).sum() / n**2
    seeds = np.var(differences.mean(axis=1), ddof=1) / 3
    degrees = (clustered + seeds) ** 2 / (clustered**2 / (n_patients - 1) + seeds**2 / 2)
    half = stats.t.ppf(0.975, degrees) * np.sqrt(clustered + seeds)
    assert found[0].difference is None
    assert found[1].difference == pytest.approx(mean.mean())
    assert (found[1].low, found[1].high) == pytest.approx((mean.mean() - half, mean.mean() + half))


def test_one_seed_has_no_deviation_and_no_interval(study: StudyFolder) -> None:
    confirm(study, 2, 1)
    first, second = confirmed_trials(study)
    assert (first.deviation, second.deviation, second.low) == (None, None, None)
    assert second.difference is not None


def test_leaderboard_and_show_have_the_confirmed_trials(
    study: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    confirm(study, 3, 3)
    results = ["--results", str(study.path.parent)]
    for words in (["leaderboard", "one"], ["show", "one"]):
        assert main([*words, *results]) == 0
        text = capsys.readouterr().out
        assert "Confirmed with new seeds: KL >=10" in text
        assert "not the luck of the rows" in " ".join(text.split())
        assert main([*words, *results, "--json"]) == 0
        content = json.loads(capsys.readouterr().out)
        assert [trial["number"] for trial in content["confirmed"]] == [1, 2, 0]
    assert main(["show", "one/1", *results]) == 0
    assert "With new training seeds: mean KL >=10" in capsys.readouterr().out
    assert main(["show", "one/3", *results]) == 0
    assert "new training seeds" not in capsys.readouterr().out


def test_folds_of_confirming_runs_are_in_use(study: StudyFolder) -> None:
    from hms_ray.storage.fold_uses import uses

    before = {file.parts[1] for files in uses(study.path.parent).values() for file in files}
    confirm(study, 1, 1)
    after = {file.parts[1] for files in uses(study.path.parent).values() for file in files}
    assert (before, after) == ({"trials"}, {"trials", "confirm"})


def test_runs_are_trained_in_order_and_written_beside_the_trials(
    study: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, ends = study.rows(), []
    monkeypatch.setattr(sweep_trial, "_train", lambda *_: result_of(rows, 0.5, 1))
    runs = missing_runs(study, 2, 1)
    search = RunList(runs, lambda run, failed: ends.append((run.number, failed)), RunFaults())
    job = StudyJob(study.path, *[None] * 6, logs=WorkerLogs(study.path), confirming=True)  # type: ignore[arg-type]
    first, second = search.suggest("a"), search.suggest("b")
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert search.suggest("c") is None
    search.on_trial_complete("a", run_trial(first, job))
    search.on_trial_complete("b", None, error=True)
    assert ends == [(0, None), (1, LOST)]
    assert search.suggest("c") == RunList.FINISHED
    assert [run.number for run in missing_runs(study, 2, 1)] == [1]
    assert len(study.trials()) == 4


@pytest.mark.parametrize(
    "words", [["--confirm", "0"], ["--confirm", "2", "--seeds", "0"]], ids=["trials", "seeds"]
)
def test_numbers_below_one_are_refused(words: list[str], tmp_path: Path, error_line: Any) -> None:
    line = error_line("sweep", "demo", "--data", tmp_path, *words)
    assert f"{words[-2]} must be at least 1, got 0. Give {words[-2]} 3." in line
