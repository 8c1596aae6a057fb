"""Cost of a trial's end in the study process, and of the commands that read a study.

``python -m tests.benchmarks.trial_end [--trials 500] [--rows 17000] [--folder DIR]`` makes a
study of finished trials with random predictions, ends ten more as a sweep does, and prints
milliseconds. Nothing is trained and Ray is not started.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.loading import validate_space
from hms_ray.dataset.prepare import PackRef, Prepared
from hms_ray.evaluate.metric import kl_report
from hms_ray.evaluate.oof import make_oof, probabilities_of
from hms_ray.experiment.run import ExperimentResult
from hms_ray.search.outcomes import Proposal
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.new import create_study
from hms_ray.sweep.study import _Run
from hms_ray.sweep.tune_searcher import StudySearch

N_FOLDS, N_PATIENTS, N_MEASURED = 5, 1_950, 10
SEARCH = {
    "training.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True},
    "training.weight_decay": {"min": 1e-4, "max": 1e-1, "log": True},
    "training.seed": {"min": 0, "max": 1_000_000},
    "training.loss": {"values": ["kl", "kl_log_votes", "kl_capped_votes"]},
}


def make_rows(n_rows: int) -> pd.DataFrame:
    """Rows of unequal patients; every second one has at least 10 votes."""
    generator = np.random.default_rng(0)
    weights = generator.gamma(0.6, size=N_PATIENTS)
    patients = generator.choice(N_PATIENTS, n_rows, p=weights / weights.sum())
    rows = pd.DataFrame(
        {
            "row_id": [f"{number}-0" for number in range(n_rows)],
            "eeg_id": np.arange(n_rows),
            "patient_id": patients,
            "total_votes": generator.choice([3, 12], n_rows),
            "fold": patients % N_FOLDS,
        }
    )
    rows[list(TARGET_COLUMNS)] = generator.dirichlet(np.full(6, 0.3), n_rows)
    return rows


class Study:
    """A study of random trials, and the process that would search it."""

    def __init__(self, place: Path, n_trials: int, n_rows: int) -> None:
        self.rows = make_rows(n_rows)
        self.rows.to_parquet(place / "rows.parquet")
        packs = {"kaggle": PackRef(place / "pack", "p" * 64)}
        self.prepared = Prepared(place / "rows.parquet", packs, "r" * 64, "f" * 64, N_FOLDS)
        budget = {"trials": n_trials + N_MEASURED}
        space = {"parameters": SEARCH, "method": "random", "budget": budget}
        self.space = validate_space(space, "benchmark")
        self.results = place / "results"
        self.folder = create_study(self.results, "many", self.space, self.prepared)
        self.store = FoldStore(self.results)
        self.generator = np.random.default_rng(1)

    def run(self) -> _Run:
        """A new process's run, connected to nothing."""
        run = _Run(self.space, self.prepared, self.results, self.folder, MagicMock(), io.StringIO())
        run._pump = MagicMock()
        return run

    def train(self, proposal: Proposal) -> dict[str, float | None]:
        """What the trial's own process does: writes random predictions."""
        noise = self.generator.uniform(0.5, 1.0)
        targets = self.rows[list(TARGET_COLUMNS)].to_numpy()
        guesses = self.generator.dirichlet(np.ones(6), len(targets))
        oof = make_oof(self.rows, self.rows["fold"], (1 - noise) * targets + noise * guesses)
        scores = kl_report(targets, probabilities_of(oof), self.rows["total_votes"])
        keys = {fold: f"{proposal.number:032d}{fold:032d}" for fold in range(N_FOLDS)}
        history = [
            {"step": step, "seconds": 1.0 * step, "stage": "train", **scores, "train_loss": 1.0}
            for step in range(12)
        ]
        record = {"seconds": 1.0, "saved_s": 0.0, "started_s": 1e9, "history": history}
        for key in keys.values():
            self.store.write(key, oof[:1], record, lambda path: path.write_bytes(b""))
        result = ExperimentResult(scores, oof, keys, (), False, 10.0)
        self.folder.write_trial(proposal.number, proposal.point, proposal.experiment, result)
        return scores


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Prints the milliseconds of its body."""
    start = time.perf_counter()
    yield
    print(f"{name:<58}{1000 * (time.perf_counter() - start):>9.1f} ms")


def end_trials(study: Study, n_trials: int) -> tuple[list[float], list[float]]:
    """Ends more trials as a sweep does; milliseconds of each, and of its CPU."""
    run = study.run()
    with timed(f"start of a run that resumes {n_trials} trials"):
        run._progress()
    search = StudySearch(run._proposals, n_trials + N_MEASURED, on_end=run._ends.record)
    taken, busy = [], []
    for number in range(N_MEASURED):
        config = search.suggest(str(number))
        assert isinstance(config, dict)
        scores = study.train(search._running[str(number)])
        start, cpu = time.perf_counter(), time.process_time()
        search.on_trial_complete(str(number), dict(scores))
        taken.append(1000 * (time.perf_counter() - start))
        busy.append(1000 * (time.process_time() - cpu))
    return taken, busy


def command(*words: str) -> None:
    """Runs a command in a new process and prints its time, imports included."""
    with timed(f"hms-ray {' '.join(words[:2])}"):
        call = [sys.executable, "-m", "hms_ray", *words]
        subprocess.run(call, check=True, stdout=subprocess.DEVNULL)


def main(place: Path, n_trials: int, n_rows: int) -> None:
    """Prints the table."""
    study = Study(place, n_trials, n_rows)
    proposals = study.run()._proposals
    with timed(f"writing {n_trials} trials of {n_rows:,} rows"):
        for _ in range(n_trials):
            proposal = proposals.next()
            assert isinstance(proposal, Proposal)
            proposals.complete(proposal.number, study.train(proposal))
    taken, busy = end_trials(study, n_trials)
    print(f"{'a trial ends: median':<58}{np.median(taken):>9.1f} ms")
    print(f"{'a trial ends: median of CPU time':<58}{np.median(busy):>9.1f} ms")
    print(f"{'a trial ends: slowest':<58}{max(taken):>9.1f} ms")
    for words in (["studies"], ["show", "many"], ["leaderboard", "many"]):
        command(*words, "--results", str(study.results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--rows", type=int, default=17_000)
    parser.add_argument("--folder", type=Path, help="an empty folder; default: a temporary one")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as temporary:
        main(Path(temporary), chosen.trials, chosen.rows)
