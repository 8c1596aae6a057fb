"""Cells of the tables of ladders: scores and differences with what they leave open."""

from __future__ import annotations

import math

from hms_ray.evaluate.intervals import Interval
from hms_ray.evaluate.step_scores import GroupScore, StepDifference
from hms_ray.report.blend_table import difference_text
from hms_ray.report.sheet import Style
from hms_ray.report.text_table import score


def interval_text(interval: Interval, style: Style) -> str:
    """A mean with its interval: half its width, or its ends."""
    half = (interval.high - interval.low) / 2
    if not math.isfinite(half):
        return f"{interval.mean:.4f}+-?"
    if style == "text":
        return f"{interval.mean:.4f}+-{half:.4f}"
    return f"{interval.mean:.4f} ({interval.low:.4f} to {interval.high:.4f})"


def difference_cell(difference: StepDifference | None, style: Style) -> str:
    """A difference with its interval and what it says; ``-`` where there is none."""
    if difference is not None and difference.same:
        return "same"
    if style == "text" or difference is None:
        return difference_text(difference)
    ends = "?"
    if math.isfinite(difference.high):
        ends = f"{difference.low:+.4f} to {difference.high:+.4f}"
    return f"{difference.mean:+.4f} ({ends}) {difference.verdict}"


def detectable_cell(found: GroupScore | None, recalibrated: bool) -> str:
    """The smallest detectable difference; ``-`` where there is none."""
    if found is None:
        return "-"
    chosen = found.recalibrated_difference if recalibrated else found.difference
    if chosen is None or chosen.same or not math.isfinite(chosen.detectable):
        return "-"
    return score(chosen.detectable)
