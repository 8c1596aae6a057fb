"""A list of studies and ladders: plain data, and its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hms_ray.display.tables import Column, Table, to_text
from hms_ray.evaluate.metric import named_scores
from hms_ray.text import counted

_OTHERS: Final = ("pruned", "diverged", "stopped", "failed")
"""States of trials that are not complete."""


@dataclass(frozen=True)
class FolderSummary:
    """A study or a ladder in a list.

    Attributes:
        kind: ``study`` or ``ladder``.
        written: when a result was last written, ISO 8601 in UTC.
        finished: number of finished trials, or of steps with a result.
        pruned, diverged, stopped, failed: numbers of other trials by their state.
        objective: score that orders the trials; None for a ladder.
        best_score: of the best trial, in nats.
        best_recalibrated: the same after nested recalibration; None if unknown.
        problem: why it cannot be read; None if it can.
        outcome: how its last run ended, if it did not finish; None also while it runs.
    """

    name: str
    kind: str
    path: str
    written: str
    finished: int = 0
    pruned: int = 0
    diverged: int = 0
    stopped: int = 0
    failed: int = 0
    objective: str | None = None
    best_trial: int | None = None
    best_score: float | None = None
    best_recalibrated: float | None = None
    problem: str | None = None
    outcome: str | None = None

    @property
    def trials_text(self) -> str:
        """Numbers of trials by their state, such as ``12 finished, 7 pruned, 1 failed``."""
        others = {name: getattr(self, name) for name in _OTHERS}
        counts = {"finished": self.finished, **{k: n for k, n in others.items() if n}}
        return ", ".join(f"{n:,} {name}" for name, n in counts.items())


def render_folders(folders: Sequence[FolderSummary], results: object) -> str:
    """A list of studies and ladders, last written first."""
    if not folders:
        return f"no studies in {results} yet"
    columns = (
        Column("name", [folder.name for folder in folders], right=False),
        Column("kind", [folder.kind for folder in folders], right=False),
        Column(
            "finished",
            [
                counted(folder.finished, "trial" if folder.kind == "study" else "step")
                for folder in folders
            ],
        ),
        *_other_columns(folders),
        Column("best trial", [number_text(folder.best_trial) for folder in folders]),
        Column("best score", [best_text(folder) for folder in folders]),
        Column(
            "last written (UTC)", [time_text(folder.written) for folder in folders], right=False
        ),
    )
    problems = [
        f"{folder.name} cannot be read: {folder.problem}" for folder in folders if folder.problem
    ]
    ends = [f"{folder.name}: {folder.outcome}" for folder in folders if folder.outcome]
    return to_text(Table("", columns, (*problems, *ends)))


def _other_columns(folders: Sequence[FolderSummary]) -> list[Column]:
    """One column per state that a trial has; failures always."""
    counts = {state: [getattr(folder, state) for folder in folders] for state in _OTHERS}
    return [
        Column(state, [str(n) for n in numbers])
        for state, numbers in counts.items()
        if state == "failed" or any(numbers)
    ]


def number_text(trial: int | None) -> str:
    """The number of a trial with four digits; ``-`` without one."""
    return "-" if trial is None else f"{trial:04d}"


def best_text(folder: FolderSummary) -> str:
    """The score of the best trial with its name; ``-`` without one."""
    return named_scores({str(folder.objective): folder.best_score}) or "-"


def time_text(text: str) -> str:
    """Date and minute of an ISO 8601 time."""
    return text[:16].replace("T", " ")
