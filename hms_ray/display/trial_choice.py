"""Nested KL of the choice of the best trial: as plain data and in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hms_ray.config.space import Objective
from hms_ray.display.cells import RECALIBRATED, rows_text, signed
from hms_ray.display.tables import NO_BREAK
from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.text import counted


@dataclass(frozen=True)
class TrialChoice:
    """The best trial's score and the nested KL of the choice, in nats.

    Attributes:
        objective: score that the choice minimises.
        n_trials: finished trials, among which was chosen.
        best_trial: number; None without a finished trial.
        best_score: its KL, on the rows that chose it.
        nested: mean over rows of the KL of the trial that is best on other patients; None if
            nothing was chosen or the rows are of one patient.
        recalibrated: the same choices, scored after nested recalibration; None if a trial has no
            such scores.
        low, high: ends of its 95% interval, clustered by patient.
        optimism: nested KL minus the best trial's.
        times_chosen: trial -> parts of the patients that it scored, most frequent first.
        n_patients: patients with rows of the objective.
        n_splits: parts of the patients.
        n_seeds: partitions into parts.
        optimistic: whether checkpoints of a chosen trial were chosen on the scored rows.
    """

    objective: Objective
    n_trials: int
    best_trial: int | None = None
    best_score: float | None = None
    nested: float | None = None
    low: float | None = None
    high: float | None = None
    optimism: float | None = None
    times_chosen: Mapping[str, int] = field(default_factory=dict)
    n_patients: int = 0
    n_splits: int = 0
    n_seeds: int = 0
    optimistic: bool = False
    recalibrated: float | None = None


def choice_text(choice: TrialChoice) -> str:
    """The nested KL and the optimism in sentences; empty without a finished trial."""
    if choice.n_trials == 0:
        return ""
    if choice.n_trials == 1:
        return "One trial: nothing was chosen."
    name = SCORE_NAMES[choice.objective]
    if choice.nested is None or choice.low is None or choice.high is None:
        rows = rows_text(choice.objective)
        patients = counted(choice.n_patients, "patient")
        return f"No nested {name} of the final choice: {rows} are of {patients}, it needs two."
    interval = f"[{choice.low:.4f},{NO_BREAK}{choice.high:.4f}]"
    if choice.recalibrated is not None:
        interval += f", {RECALIBRATED} {choice.recalibrated:.4f}"
    parts = f"{counted(choice.n_splits, 'part')}, {counted(choice.n_seeds, 'seed')}"
    text = (
        f"Nested {name} of the final choice: {choice.nested:.4f} {interval}. Each patient is "
        f"scored by the trial that is best on other patients ({parts}). Optimism of the best "
        f"trial's score: {signed(choice.optimism or 0.0)} (nested KL minus its KL; above 0: its "
        "KL is too low). This prices the final choice; the search itself used these rows, see "
        "hold-out (data.holdout, hms-ray holdout)."
    )
    if choice.optimistic:
        text += " Checkpoints were chosen on these rows too, so both scores are optimistic."
    return text
