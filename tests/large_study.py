"""A study of many trials with their histories, predictions, journal and cost; none is trained.

``python -m tests.large_study RESULTS [--trials 200] [--folds 5] [--name many]`` writes one into
a results folder. Numbers are drawn so that a search has something to find: the learning rate has
an optimum, losses differ, votes for LRDA are predicted as Other, folds differ in difficulty.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import pandas as pd

from hms_ray.competition.schema import CLASSES, TARGET_COLUMNS
from hms_ray.config.experiment import Experiment
from hms_ray.config.loading import validate_space
from hms_ray.config.space import Space
from hms_ray.dataset.prepare import PackRef, Prepared
from hms_ray.evaluate.metric import Array, kl_report
from hms_ray.evaluate.oof import make_oof
from hms_ray.experiment.run import ExperimentResult
from hms_ray.search.outcomes import Proposal, Pruned
from hms_ray.search.proposals import Proposals
from hms_ray.search.pruner import FoldReport
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.hashing import digest
from hms_ray.study.cost import RunCounter
from hms_ray.study.folder import StudyFolder
from hms_ray.study.new import create_study

N_ROWS, N_PATIENTS = 2_000, 300
STAGES: Final[dict[str, int]] = {"noisy": 3, "good": 6}
"""Stage -> epochs."""
SEARCH: Final[dict[str, Any]] = {
    "training.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True},
    "training.weight_decay": {"min": 1e-4, "max": 1e-1, "log": True},
    "training.loss": {"values": ["kl", "kl_log_votes", "kl_capped_votes"]},
    "model.dropout": {"min": 0.0, "max": 0.5},
}
STARTED_S: Final = 1_767_225_600.0
"""Unix time of the first trial: 2026-01-01."""
_LRDA, _OTHER = CLASSES.index("LRDA"), CLASSES.index("Other")
_LOSS_PENALTY = {"kl": 0.08, "kl_log_votes": 0.0, "kl_capped_votes": 0.03}


@dataclass(frozen=True)
class Ends:
    """Every how many trials one ends without a score, from that number on; 0: none."""

    pruned: int = 9
    diverged: int = 31
    failed: int = 47


def make_rows(n_folds: int, n_rows: int = N_ROWS, n_patients: int = N_PATIENTS) -> pd.DataFrame:
    """Rows of unequal patients with votes of 1-20 raters."""
    generator = np.random.default_rng(0)
    weights = generator.gamma(0.8, size=n_patients)
    patients = np.sort(generator.choice(n_patients, n_rows, p=weights / weights.sum()))
    total = generator.choice([1, 2, 3, 5, 12, 15, 20], n_rows)
    habits = generator.dirichlet(np.full(6, 0.4), n_patients)[patients]
    truth = np.stack([generator.dirichlet(0.1 + 2 * habit) for habit in habits])
    votes = np.stack([generator.multinomial(n, p) for n, p in zip(total, truth, strict=True)])
    rows = pd.DataFrame(
        {
            "row_id": [f"{number}-0" for number in range(n_rows)],
            "eeg_id": np.arange(n_rows),
            "patient_id": patients,
            "total_votes": total,
            "fold": patients % n_folds,
        }
    )
    rows[list(TARGET_COLUMNS)] = votes / total[:, None]
    return rows


class LargeStudy:
    """Writes the trials of a study.

    Args:
        results: folder of all studies.
        name: of the study.
        n_trials: trials, whatever their ends.
        n_folds: folds of each.
        n_rows: rows of the study.
        ends: which trials end without a score.
    """

    def __init__(
        self,
        results: Path,
        name: str = "many",
        *,
        n_trials: int = 200,
        n_folds: int = 5,
        n_rows: int = N_ROWS,
        ends: Ends | None = None,
    ) -> None:
        self.ends, self.n_trials, self.n_folds = ends or Ends(), n_trials, n_folds
        self.rows = make_rows(n_folds, n_rows, max(2 * n_folds, n_rows * N_PATIENTS // N_ROWS))
        self.targets = self.rows[list(TARGET_COLUMNS)].to_numpy()
        results.mkdir(parents=True, exist_ok=True)
        rows_file = results / ".rows.parquet"
        self.rows.to_parquet(rows_file)
        packs = {"kaggle": PackRef(results / "pack", "p" * 64)}
        prepared = Prepared(rows_file, packs, "r" * 64, "f" * 64, n_folds)
        self.space = make_space(n_trials, n_folds)
        self.folder = create_study(results, name, self.space, prepared)
        rows_file.unlink()
        self.store = FoldStore(results)
        self.generator = np.random.default_rng(1)
        shape = (2, *self.targets.shape)
        # Errors that all models share, by patient, and those of one row.
        self._common = self.generator.normal(size=shape)[:, self.rows["patient_id"].to_numpy() % 97]
        self._now = STARTED_S
        self._counter = RunCounter(self.folder.path, results, clock=lambda: self._now)
        self._counter.slots = 2
        self._reports: list[FoldReport] = []

    def write(self) -> StudyFolder:
        """Writes all trials, the journal, the environment and the cost."""
        proposals = Proposals(
            self.space, self.folder.journal, reports=lambda number: tuple(self._reports)
        )
        self.folder.record_run(_environment())
        self._now += 20.0
        for _ in range(self.n_trials):
            proposal = proposals.next()
            assert isinstance(proposal, Proposal)
            self._write_trial(proposals, proposal)
        self._counter.write()
        return self.folder

    def _write_trial(self, proposals: Proposals, proposal: Proposal) -> None:
        number, ends = proposal.number, self.ends
        known = (number, proposal.point, proposal.experiment)
        started_s = self._now
        if _hits(number, ends.failed):
            reason = "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB"
            self._now += 30.0
            self.folder.write_failure(*known, reason, f"Traceback ...\n{reason}\n")
            proposals.fail(number, reason)
        elif _hits(number, ends.diverged):
            reason = "the loss must be finite, got nan (stage good, epoch 2)"
            self._now += 60.0
            self.folder.write_failure(*known, reason, state="diverged")
            proposals.prune(number, Pruned(reason, diverged=True))
        else:
            table = self._predictions(proposal.experiment)
            pruned = self.n_folds > 2 and _hits(number, ends.pruned)
            n_folds = 2 if pruned else self.n_folds
            result = self._folds(proposal, table, n_folds, started_s)
            if n_folds == self.n_folds:
                self.folder.write_trial(*known, result)
                proposals.complete(number, result.scores)
            else:
                self._prune(proposals, proposal, result)
        for file in self.folder.trial_path(number).glob("*"):
            os.utime(file, (self._now, self._now))

    def _prune(self, proposals: Proposals, proposal: Proposal, result: ExperimentResult) -> None:
        estimate = self._reports[-1].estimate
        reason = f"after 2 of {self.n_folds} folds worse than the best trial"
        self.folder.write_pruned(
            *(proposal.number, proposal.point, proposal.experiment),
            *(result, reason, estimate, self.n_folds),
        )
        proposals.prune(proposal.number, Pruned(reason))
        trial = self.folder.trial(proposal.number)
        assert trial is not None
        self._counter.add_pruned(60 * trial.saved_folds_minutes[1])

    def _predictions(self, experiment: Experiment) -> Array:
        """(n, 6) of one trial, better near a learning rate of 2e-3 and without dropout."""
        training = experiment.training
        far = abs(math.log10(training.learning_rate / 2e-3))
        badness = 0.5 + 0.5 * far + _LOSS_PENALTY[training.loss] + 0.2 * experiment.model.dropout
        shown = 0.85 * self.targets + 0.15 / 6
        # What no model of this study can see.
        moved = 0.6 * shown[:, _LRDA]
        shown[:, _OTHER] += moved
        shown[:, _LRDA] -= moved
        own = self.generator.normal(size=self.targets.shape)
        by_fold = self.generator.normal(0, 0.06, self.n_folds)[self.rows["fold"].to_numpy()]
        noise = 0.7 * self._common[0] + 0.3 * self._common[1] + 0.5 * own
        logits = 0.8 * np.log(shown) + (badness + by_fold[:, None]) * noise
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        made: Array = weights / weights.sum(axis=1, keepdims=True)
        return made

    def _folds(
        self, proposal: Proposal, table: Array, n_folds: int, started_s: float
    ) -> ExperimentResult:
        """Stores the folds of a trial, two at a time."""
        oof = make_oof(self.rows, self.rows["fold"], table)
        votes, keys = self.rows["total_votes"], {}
        seconds = float(self.generator.uniform(240, 480))
        self._reports = []
        for fold in range(n_folds):
            of_fold = (self.rows["fold"] == fold).to_numpy()
            scores = kl_report(self.targets[of_fold], table[of_fold], votes[of_fold])
            inputs = {"study": self.folder.name, "trial": proposal.number, "fold": fold}
            key = keys[fold] = digest(inputs)
            history = self._history(scores, proposal.experiment, seconds)
            record = {
                "made_from": inputs,
                "made_with": {"device": "cpu"},
                "resolved": proposal.experiment.model_dump(mode="json"),
                "history": history,
                "normalisation": {},
                "timing": {
                    "total_s": seconds,
                    "prepare_s": 4.0,
                    "train_s": 0.8 * seconds,
                    "evaluate_s": 0.15 * seconds,
                    "images_per_s": 55.0,
                },
                "precision": "float32",
                "optimistic": False,
                "reused_stages": None,
                "saved_s": 0.0,
                "started_s": started_s + seconds * (fold // 2),
                "seconds": seconds,
            }
            self.store.write(key, oof[of_fold], record, lambda path: path.write_bytes(b""))
            self._counter.handle({"event": "fold_started"})
            self._counter.handle({"event": "fold_ended", "key": key})
            objective = scores[self.space.objective] or 0.0
            self._reports.append(FoldReport(fold + 1, fold, objective, objective))
        self._now += seconds * -(-n_folds // 2) * 1.05
        scores = kl_report(self.targets, table, votes)
        return ExperimentResult(scores, oof, keys, (), False, seconds * n_folds / 60)

    def _history(
        self, scores: dict[str, float | None], experiment: Experiment, seconds: float
    ) -> list[dict[str, Any]]:
        """Two evaluations per epoch that approach the scores; the last one has them."""
        parts = [
            (index, name, epoch + half)
            for index, (name, epochs) in enumerate(STAGES.items())
            for epoch in range(epochs)
            for half in (0.5, 1.0)
        ]
        n_stages, history = len(STAGES), list[dict[str, Any]]()
        for step, (index, name, epoch) in enumerate(parts, start=1):
            left = 1 - step / len(parts)
            above = 0.9 * left**2 + abs(self.generator.normal(0, 0.02)) * (left > 0)
            history.append(
                {
                    "stage": name,
                    "stage_index": index,
                    "epoch": epoch,
                    "step": 40 * step,
                    **{kl: None if end is None else end + above for kl, end in scores.items()},
                    "train_loss": 0.3 + 0.8 * left + 0.1 * (n_stages - 1 - index),
                    "learning_rate": experiment.training.learning_rate * max(left, 0.02),
                    "seconds": seconds * step / len(parts),
                }
            )
        return history


def make_space(n_trials: int, n_folds: int) -> Space:
    """The searched space."""
    stages = [
        {"name": name, "rows": rows, "epochs": epochs}
        for (name, epochs), rows in zip(
            STAGES.items(), ("below_threshold", "at_least_threshold"), strict=True
        )
    ]
    experiment = {
        "name": "large",
        "data": {"unit": "eeg_votes", "n_folds": n_folds},
        "model": {"name": "test_resnet", "pretrained": False},
        "training": {"stages": stages, "stage_threshold": 4},
    }
    made = {
        "experiment": experiment,
        "parameters": SEARCH,
        "method": "random",
        "metric": "kl_10",
        "budget": {"trials": n_trials},
    }
    return validate_space(made, "large study")


def _hits(number: int, every: int) -> bool:
    return every > 0 and number % every == every - 1


def _environment() -> dict[str, Any]:
    return {
        "started": "2026-01-01T00:00:00+00:00",
        "hms_ray": "0.0",
        "packages": {"torch": "2.15.0"},
        "machine": "x86_64",
        "cores": 2,
        "command": ["hms-ray", "sweep", "large.yaml", "--data", "competition"],
        "cluster": {"nodes": [{"id": "n", "host": "host", "cpus": 2.0, "gpus": 0.0}]},
    }


def write_large_study(results: Path, name: str = "many", **sizes: Any) -> StudyFolder:
    """Writes a study without waiting for the disk; see ``LargeStudy``."""
    with patch("os.fsync", lambda descriptor: None):
        return LargeStudy(results, name, **sizes).write()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--name", default="many")
    chosen = parser.parse_args()
    start = time.perf_counter()
    made = write_large_study(
        chosen.results, chosen.name, n_trials=chosen.trials, n_folds=chosen.folds
    )
    print(f"{made.path}: {time.perf_counter() - start:.1f} s")
