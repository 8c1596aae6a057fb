"""A trial and its confirming runs as one model: the mean of the probabilities of all seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import pandas as pd

from hms_ray.errors import StudyError
from hms_ray.evaluate.metric import Array
from hms_ray.study.confirmation import confirming_runs, mean_probabilities
from hms_ray.study.folder import StudyFolder
from hms_ray.study.trial import StoredTrial
from hms_ray.text import command_line

SEEDS: Final = "@seeds"
"""After the name of a study or trial: its models of all training seeds."""


def without_seeds(target: str) -> tuple[str, bool]:
    """A target without ``SEEDS``, and whether it had it."""
    return target.removesuffix(SEEDS), target.endswith(SEEDS)


@dataclass(frozen=True)
class SeedRuns:
    """A trial with several training seeds.

    Attributes:
        runs: finished runs of the same experiment; the trial's own first.
    """

    runs: Sequence[StoredTrial]

    @property
    def keys(self) -> dict[int, str]:
        """Number of a model -> cache key: the folds of the first run, then those of the next."""
        n_folds = len(self.runs[0].keys)
        return {
            place * n_folds + fold: key
            for place, run in enumerate(self.runs)
            for fold, key in sorted(run.keys.items())
        }

    @property
    def number(self) -> int:
        """Number of the trial."""
        return self.runs[0].number

    @property
    def optimistic(self) -> bool:
        """Whether checkpoints were chosen on the scored rows."""
        return any(run.optimistic for run in self.runs)

    @property
    def fold_minutes(self) -> float:
        """Training time of all runs."""
        return sum(run.fold_minutes for run in self.runs)

    def probabilities(self, rows: pd.DataFrame) -> Array:
        """Mean of the out-of-fold probabilities of all runs, (n, 6).

        Raises:
            StudyError: see ``StoredTrial.oof``.
        """
        return mean_probabilities(self.runs, rows)


def seed_runs(folder: StudyFolder, number: int | None) -> SeedRuns:
    """A finished trial and all its confirming runs; default: the best trial.

    Raises:
        StudyError: if the trial did not finish, or has no confirming run.
    """
    trial = folder.finished_trial(number)
    others = confirming_runs(folder).get(trial.number, {})
    if not others:
        raise StudyError(
            f"{SEEDS} needs a trial that was trained with further seeds",
            got=f"one training seed of trial {trial.number:04d}",
            where=folder.path,
            fix="Train them: run the command of the study with --confirm 1 --seeds 3, such as "
            + command_line("sweep", "FILE", "--data", "DIR", "--study", folder.name)
            + " --confirm 1 --seeds 3",
        )
    return SeedRuns((trial, *others.values()))


class TrialTarget(NamedTuple):
    """A trial that a target names.

    Attributes:
        study: its study.
        number: of the trial; None: the best one.
        seeds: whether its models of all training seeds are meant, see ``study.seeds``.
    """

    study: StudyFolder
    number: int | None
    seeds: bool = False

    def models(self) -> tuple[StoredTrial, dict[int, str]]:
        """The finished trial, and the cache keys of its models by number.

        Raises:
            StudyError: if it did not finish, or has no further seeds.
        """
        if self.seeds:
            runs = seed_runs(self.study, self.number)
            return runs.runs[0], runs.keys
        trial = self.study.finished_trial(self.number)
        return trial, trial.keys

    def name(self, trial: StoredTrial) -> str:
        """Name of the models, for messages."""
        return f"{self.study.name} {trial.number:04d}{SEEDS * self.seeds}"
