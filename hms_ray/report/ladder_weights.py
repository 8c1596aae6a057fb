"""What the blends of a ladder are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hms_ray.report.ladder_report import LadderReport
from hms_ray.report.sheet import Sheet, Style
from hms_ray.report.text_table import Column, shortened_names

_MEMBERS_A_LINE: Final = 3
_MEMBER_LENGTH: Final = 9


def weights_sheets(report: LadderReport, style: Style) -> list[Sheet]:
    """The table of the blends' members and weights; none without blends."""
    blends = [step for step in report.steps if step.weights is not None]
    if not blends:
        return []
    numbers, names, kinds, members = [], [], [], []
    for step in blends:
        lines = _members(report, step.weights or {}, style)
        further = [""] * (len(lines) - 1)
        numbers += [str(report.number(step.name)), *further]
        names += [step.name, *further]
        kinds += [step.kind.removesuffix("_blend"), *further]
        members += lines
    columns = (
        Column("#", numbers),
        Column("step", names, right=False, names=True),
        Column("weights", kinds, right=False),
        Column("members", members, right=False),
    )
    note = (
        "Optimised weights are those of all patients; the blend is scored with weights fitted "
        "on other patients."
    )
    notes = (note,) if any(step.kind == "optimised_blend" for step in blends) else ()
    return [Sheet("Weights of blends", columns, notes)]


def _members(report: LadderReport, weights: Mapping[str, float], style: Style) -> list[str]:
    """A blend's members; in text by number, a few a line."""
    known = [step.name for step in report.steps]
    if style == "markdown":
        return [" + ".join(f"{weight:.3f} {name}" for name, weight in weights.items()) or "-"]
    others = [name for name in weights if name not in known]
    places = {name: f"#{number}" for number, name in enumerate(known, 1)}
    places |= dict(zip(others, shortened_names(others, _MEMBER_LENGTH), strict=True))
    texts = [f"{weight:.3f} {places[name]}" for name, weight in weights.items()]
    lines = range(0, len(texts), _MEMBERS_A_LINE)
    return [" + ".join(texts[first : first + _MEMBERS_A_LINE]) for first in lines] or ["-"]
