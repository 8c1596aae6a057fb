"""Scores, intervals and differences as every table and sentence prints them."""

from __future__ import annotations

import math
from typing import Final

from hms_ray.display.tables import NO_BREAK
from hms_ray.evaluate.intervals import Difference, Interval
from hms_ray.evaluate.metric import OBJECTIVES

OPTIMISTIC_LEGEND: Final = (
    "* optimistic: its checkpoints were chosen on the rows that it is scored on."
)
RECALIBRATED: Final = "recalibrated"
RECALIBRATED_LEGEND: Final = (
    "recalibrated: after six class biases and a temperature, fitted on other patients."
)
TIE_LEGEND: Final = "tie: the paired 95% interval, clustered by patient, contains 0."


def score_text(value: float | None) -> str:
    """A KL divergence with four decimals; ``-`` if it is unknown."""
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def signed(value: float, sign: str = "+") -> str:
    """Four decimals with a sign; what rounds to 0 has no minus."""
    # Adding 0 turns the -0.0 of rounding into 0.
    return f"{round(value, 4) + 0.0:{sign}.4f}"


def ends_text(interval: Interval, sign: str = "") -> str:
    """Both ends in brackets; with one patient there are none."""
    if not math.isfinite(interval.high - interval.low):
        return f"[no{NO_BREAK}interval]"
    return f"[{signed(interval.low, sign)},{NO_BREAK}{signed(interval.high, sign)}]"


def interval_text(interval: Interval | None) -> str:
    """A mean with its 95% interval, such as ``0.6123 [0.5801, 0.6445]``."""
    if interval is None:
        return "-"
    return f"{signed(interval.mean, '')} {ends_text(interval)}"


def difference_text(difference: Difference | None) -> str:
    """A difference with its 95% interval and verdict: ``-0.0146 [-0.0198, -0.0093] better``."""
    if difference is None:
        return "-"
    if getattr(difference, "same", False):
        return "same"
    return f"{signed(difference.mean)} {ends_text(difference, '+')} {difference.verdict}"


def rows_text(objective: str) -> str:
    """The rows of an objective, in words."""
    fewest = OBJECTIVES[objective]
    return f"rows with >= {fewest} votes" if fewest else "all rows"
