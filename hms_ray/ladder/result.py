"""Results of a ladder's steps."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from hms_ray.display.ladder_report import StepFacts


@dataclass(frozen=True, kw_only=True)
class StepResult(StepFacts):
    """Result of one step.

    Attributes:
        oof: out-of-fold predictions of all rows (``evaluate.oof.OOF_COLUMNS``), in the
            order of the ladder's rows; of an optimised blend with weights
            fitted on other patients.
        keys: fold -> cache key of its models in the fold store; None for a blend.
    """

    oof: pd.DataFrame
    keys: dict[str, str] | None = None
