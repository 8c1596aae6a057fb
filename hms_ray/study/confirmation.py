"""The best trials of a study, trained again with new training seeds and ranked on those.

The best of many trials is partly a lucky draw of its training. New seeds remove that luck; the
rows and folds are those that chose the trials, so that the luck of the rows stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.experiment import Experiment
from hms_ray.config.import_path import is_import_path
from hms_ray.config.space import Space
from hms_ray.config.values import replace_values
from hms_ray.display.cells import RECALIBRATED
from hms_ray.display.tables import Column, Table
from hms_ray.errors import HmsRayError, StudyError
from hms_ray.evaluate.intervals import paired_difference, t_quantile
from hms_ray.evaluate.metric import OBJECTIVES, SCORE_NAMES, Array, kl_report, named_scores
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.evaluate.seed_variance import seed_variance
from hms_ray.study.folder import StudyFolder
from hms_ray.study.row_scores import RowScores
from hms_ray.study.trial import StoredTrial, read_trial

CONFIRM: Final = "confirm"
SEED_OFFSET: Final = 1_000
"""New seeds are the trial's own one and 1,001, 1,002, ... more: far from seeds that a study
itself may search."""


class ConfirmedRuns(StudyFolder):
    """The folder of a study, for trials that are trained again with one other seed.

    Args:
        path: folder of the study.
        seed: training seed of the runs.
    """

    def __init__(self, path: str | Path, seed: int) -> None:
        super().__init__(path)
        self._seed = seed

    def trial_path(self, number: int) -> Path:
        """Folder of a run, which may not exist yet."""
        return self.path / CONFIRM / f"{number:04d}-seed-{self._seed}"


@dataclass(frozen=True)
class ConfirmingRun:
    """A run to train: a trial's experiment with another seed."""

    number: int
    point: Mapping[str, Any]
    experiment: Experiment


def missing_runs(folder: StudyFolder, n_best: int, n_seeds: int) -> list[ConfirmingRun]:
    """The runs of the best trials that are not stored yet, one seed of all trials first.

    Args:
        folder: the study.
        n_best: number of trials, by the study's objective.
        n_seeds: new seeds of each.
    """
    best = folder.finished_trials()[:n_best]
    experiments = {trial.number: trial.experiment for trial in best}
    missing = []
    for place in range(1, n_seeds + 1):
        for trial in best:
            experiment = experiments[trial.number]
            seed = experiment.training.seed + SEED_OFFSET + place
            stored = ConfirmedRuns(folder.path, seed).trial(trial.number)
            if stored is None or not stored.finished:
                made = replace_values(experiment, {"training.seed": seed})
                name = f"trial {trial.number:04d} seed {seed}"
                made = made.model_copy(update={"name": name})
                missing.append(ConfirmingRun(trial.number, trial.point, made))
    return missing


def require_own_model(space: Space, run: ConfirmingRun, folder: StudyFolder) -> None:
    """Checks that a stored trial runs no code which the user's own space does not name.

    Raises:
        StudyError: if it would.
    """
    # Imports what makes data ready, which commands that show a study do not need.
    from hms_ray.study.identity import import_paths

    name = run.experiment.model.name
    if is_import_path(name) and name not in import_paths(space):
        raise StudyError(
            "a trial must have a model that the search space names",
            got=name,
            where=folder.trial_path(run.number),
            fix="Move that trial's folder away.",
        )


@dataclass(frozen=True)
class ConfirmedTrial:
    """A trial's score with new seeds.

    Attributes:
        number: of the trial.
        searched: its score in the search, by which it was chosen.
        scores: seed -> score of the run with that seed.
        difference: mean over seeds minus that of the best confirmed trial, on the seeds that
            both have; None for that one.
        low, high: 95% interval of the difference, over patients and seeds; None if unknown.
        recalibrated: mean over the new seeds of the score after nested recalibration; None if
            some run lacks it.
        averaged: scores of the mean of the probabilities of all seeds, the run of the search
            included (see ``study.seeds``).
    """

    number: int
    searched: float | None
    scores: dict[int, float]
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    recalibrated: float | None = None
    averaged: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean over the new seeds."""
        return float(np.mean(list(self.scores.values())))

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the new seeds; None with one."""
        values = list(self.scores.values())
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def text(self, objective: str) -> str:
        """The scores in one line."""
        scores = ", ".join(f"{seed}: {score:.4f}" for seed, score in self.scores.items())
        text = f"With new training seeds: mean {SCORE_NAMES[objective]} {self.mean:.4f} ({scores})"
        if self.recalibrated is not None:
            text += f", recalibrated {self.recalibrated:.4f}"
        averaged = named_scores(self.averaged)
        return f"{text}\nMean of the probabilities of {len(self.scores) + 1} seeds: {averaged}"


def confirming_runs(folder: StudyFolder) -> dict[int, dict[int, StoredTrial]]:
    """Trial -> new seed, ascending -> finished run with it."""
    runs: dict[int, dict[int, StoredTrial]] = {}
    for path in (folder.path / CONFIRM).glob("*-seed-*"):
        run = read_trial(path)
        if run is not None and run.finished and run.scores[folder.objective] is not None:
            runs.setdefault(run.number, {})[int(path.name.rpartition("-")[2])] = run
    return {number: dict(sorted(by_seed.items())) for number, by_seed in sorted(runs.items())}


def confirmed_trials(folder: StudyFolder) -> list[ConfirmedTrial]:
    """Trials with finished runs of new seeds, the best mean over seeds first."""
    runs = confirming_runs(folder)
    if not runs:
        return []
    trials, objective, rows = {}, folder.objective, folder.rows()
    for number, by_seed in runs.items():
        own = folder.trial(number)
        trials[number] = ConfirmedTrial(
            number,
            searched=None if own is None else own.scores.get(objective),
            scores={seed: run.scores[objective] or 0.0 for seed, run in by_seed.items()},
            recalibrated=_mean([run.recalibrated.get(objective) for run in by_seed.values()]),
            averaged=_averaged([*([] if own is None else [own]), *by_seed.values()], rows),
        )
    first, *others = sorted(trials.values(), key=lambda trial: (trial.mean, trial.number))
    return [first, *_compared(folder, runs, first, others)]


def _compared(
    folder: StudyFolder,
    runs: Mapping[int, Mapping[int, StoredTrial]],
    first: ConfirmedTrial,
    others: Sequence[ConfirmedTrial],
) -> list[ConfirmedTrial]:
    """The other trials with their differences to the first one."""
    rows = folder.rows()
    counted = (rows["total_votes"] >= OBJECTIVES[folder.objective]).to_numpy()
    patients, row_scores = rows["patient_id"].to_numpy()[counted], RowScores(rows)

    def kl(number: int, seed: int) -> Array:
        return row_scores.of(runs[number][seed].path)[counted]

    compared = []
    for trial in others:
        # Seeds are paired by their order: those of two trials may have different numbers.
        pairs = list(zip(trial.scores, first.scores, strict=False))
        differences = np.stack([kl(trial.number, s) - kl(first.number, t) for s, t in pairs])
        found = paired_difference(differences.mean(axis=0), np.zeros(len(patients)), patients)
        low: float | None = None
        high: float | None = None
        variance = seed_variance(found, [(len(patients), differences.mean(axis=1))])
        if variance is not None:
            total, degrees = variance
            half = t_quantile(degrees) * total**0.5
            low, high = found.mean - half, found.mean + half
        compared.append(replace(trial, difference=found.mean, low=low, high=high))
    return compared


def confirmation_table(confirmed: Sequence[ConfirmedTrial], objective: str) -> Table | None:
    """The trials by their scores with new seeds; None without any."""
    if not confirmed:
        return None
    order = sorted(confirmed, key=lambda t: (t.searched is None, t.searched or 0.0, t.number))
    place = {trial.number: f"{n}" for n, trial in enumerate(order, start=1)}
    columns = (
        Column("trial", [f"{trial.number:04d}" for trial in confirmed]),
        Column("new seeds", [_number(trial.mean) for trial in confirmed]),
        Column("sd", [_number(trial.deviation) for trial in confirmed]),
        Column("seeds", [str(len(trial.scores)) for trial in confirmed]),
        Column(RECALIBRATED, [_number(trial.recalibrated) for trial in confirmed]),
        Column("averaged", [_number(trial.averaged.get(objective)) for trial in confirmed]),
        Column("in the search", [_number(trial.searched) for trial in confirmed]),
        Column("its rank", [place[trial.number] for trial in confirmed]),
        Column("difference to the first", [_difference(trial) for trial in confirmed]),
    )
    name = SCORE_NAMES[objective]
    seeds_note = (
        f"new seeds: mean {name} over runs with other training seeds; the run of the search, "
        "which chose the trial, does not count. sd: between these seeds."
    )
    rows_note = (
        "Rows and folds are those that chose the trials: new seeds remove the luck of training, "
        "not the luck of the rows. The difference has a 95% interval over patients and seeds."
    )
    averaged_note = (
        f"averaged: {name} of the mean of the probabilities of all seeds, the run of the search "
        "included: out of fold, what submit STUDY/TRIAL@seeds predicts."
    )
    notes = (seeds_note, averaged_note, rows_note)
    return Table(f"Confirmed with new seeds: {name}", columns, notes)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def mean_probabilities(runs: Sequence[StoredTrial], rows: pd.DataFrame) -> Array:
    """Mean of the out-of-fold probabilities of runs, (n, 6) in the order of the rows.

    Raises:
        StudyError: see ``StoredTrial.oof``.
    """
    found: Array = np.mean([probabilities_of(run.oof(rows)) for run in runs], axis=0)
    return found


def _averaged(runs: Sequence[StoredTrial], rows: pd.DataFrame) -> dict[str, float | None]:
    """Scores of the mean of the probabilities of some runs; empty if some are unreadable."""
    with suppress(HmsRayError, OSError):
        found = mean_probabilities(runs, rows)
        return kl_report(rows[list(TARGET_COLUMNS)].to_numpy(), found, rows["total_votes"])
    return {}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _difference(trial: ConfirmedTrial) -> str:
    if trial.difference is None:
        return "-"
    text = f"{trial.difference:+.4f}"
    if trial.low is None or trial.high is None:
        return text
    return f"{text} ({trial.low:+.4f} to {trial.high:+.4f})"
