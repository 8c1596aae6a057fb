"""Results of a ladder's steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

StepKind = Literal["experiment", "fixed_blend", "optimised_blend"]
PublishedRows = Literal["all", "stage_2"]
"""Rows that a published figure is on: all, or those of the published second stage."""


@dataclass(frozen=True)
class StepResult:
    """Result of one step.

    Attributes:
        name: short and unique within its ladder.
        chain: which chain it belongs to, such as ``published`` or ``one_factor``.
        change: what the step changes against its baseline, in a few words.
        before: its baseline, the name of another step; None for a first step.
        kind: an experiment, or a blend of other steps.
        oof: out-of-fold predictions of all rows (``evaluate.oof.OOF_COLUMNS``), in the
            order of the ladder's rows; of an optimised blend with weights
            fitted on other patients.
        optimistic: whether checkpoints of any member were chosen on the scored rows.
        weights: of a blend, member -> weight (fitted on all patients if optimised).
        fold_minutes: training minutes of all its folds, or of those of a blend's members.
        saved_minutes: minutes of these that stages reused from the fold store saved.
        published_cv: published out-of-fold KL; None if unpublished.
        published_lb: published public leaderboard KL; None if unpublished.
        published_rows: the rows that ``published_cv`` is on.
        keys: fold -> cache key of its models in the fold store; None for a blend.
    """

    name: str
    chain: str
    change: str
    before: str | None
    kind: StepKind
    oof: pd.DataFrame
    optimistic: bool
    weights: dict[str, float] | None
    fold_minutes: float
    saved_minutes: float
    published_cv: float | None
    published_lb: float | None
    published_rows: PublishedRows = "all"
    keys: dict[str, str] | None = None
