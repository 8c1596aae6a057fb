"""A study and the page that shows it, and texts that several sections share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from hms_ray.display.cells import score_text, signed
from hms_ray.display.tables import NO_BREAK
from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.report.page import Page
from hms_ray.report.study_data import StudyData
from hms_ray.study.folder import StudyFolder

OPTIMISTIC_MARK: Final = " (optimistic)"


@dataclass(frozen=True)
class StudyView:
    """A study and the page that its figures are added to.

    Attributes:
        data: the study.
        page: its report.
    """

    data: StudyData
    page: Page

    @property
    def folder(self) -> StudyFolder:
        """The study's folder."""
        return self.data.folder

    @property
    def objective(self) -> str:
        """The score that orders the trials."""
        return self.data.objective

    @property
    def score(self) -> str:
        """Its name in texts."""
        return SCORE_NAMES[self.objective]

    @property
    def best(self) -> str:
        """The best trial, in words."""
        trial = self.data.finished[0]
        return f"trial {trial.number:04d}{OPTIMISTIC_MARK if trial.optimistic else ''}"


def ends_cell(low: float | None, high: float | None, *, signs: bool = False) -> str:
    """Ends of an interval in brackets; empty if unknown."""
    if low is None or high is None or not math.isfinite(high - low):
        return ""
    shown = signed if signs else score_text
    return f"[{shown(low)},{NO_BREAK}{shown(high)}]"


def interval_cell(found: dict[str, Any] | None) -> str:
    """A mean with its interval; ``-`` if it is unknown."""
    if not found or found.get("mean") is None:
        return "-"
    return f"{score_text(found['mean'])} {ends_cell(found.get('low'), found.get('high'))}"


def score_cell(value: Any) -> str:
    """A KL; ``-`` if it is missing."""
    return score_text(None if pd.isna(value) else float(value))


def share_cell(value: float) -> str:
    """A share with two decimals; ``-`` if it is missing."""
    return "-" if math.isnan(value) else f"{value:.2f}"
