"""What the steps of a ladder came to; all that its tables and pictures need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

Kind = Literal["experiment", "fixed_blend", "optimised_blend"]
PublishedRows = Literal["all", "stage_2"]
"""Rows that a published figure is on: all, or those of the published second stage."""


@dataclass(frozen=True)
class StepResult:
    """One step of a ladder, run.

    Attributes:
        name: of the step, short and unique within its ladder.
        chain: which chain it belongs to, such as ``published`` or ``one_factor``.
        change: what the step changes against the one before, in a few words.
        before: name of the step that it is compared with; None for a first one.
        kind: an experiment of its own, or a blend of others.
        oof: out-of-fold predictions of all rows (``evaluate.oof.OOF_COLUMNS``), in the
            order of the ladder's rows; of an optimised blend the nested ones: weights
            fitted on other patients.
        optimistic: whether checkpoints were chosen on the scored rows, of any member.
        weights: of a blend, member -> weight (fitted on all patients where optimised).
        fold_minutes: what all its folds take by themselves, members of blends included.
        saved_minutes: how much of that was not spent, stages taken from the store.
        published_cv: the publication's out-of-fold KL, None where it has none.
        published_lb: its public leaderboard KL, None where it has none.
        published_rows: the rows that ``published_cv`` is on.
        keys: fold -> address of its models in the fold store; None of blends, and of
            ladders that were written before addresses were.
    """

    name: str
    chain: str
    change: str
    before: str | None
    kind: Kind
    oof: pd.DataFrame
    optimistic: bool
    weights: dict[str, float] | None
    fold_minutes: float
    saved_minutes: float
    published_cv: float | None
    published_lb: float | None
    published_rows: PublishedRows = "all"
    keys: dict[str, str] | None = None
