"""What ``hms-ray holdout`` prints: scores on held-out patients beside out-of-fold scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hms_ray.display.cells import OPTIMISTIC_LEGEND, RECALIBRATED, difference_text, interval_text
from hms_ray.display.tables import Column, Table, to_text
from hms_ray.evaluate.intervals import Difference, Interval, independent_difference
from hms_ray.evaluate.metric import OBJECTIVES, SCORE_NAMES, named_scores
from hms_ray.text import counted

Intervals = Mapping[str, Interval | None]
"""Score (``kl_all``, ``kl_4``, ``kl_10``) -> mean with interval; None without rows."""

_LEGEND: Final = (
    "single fold models: mean of the KL of each fold model alone; compare it with out-of-fold.\n"
    "mean of the fold models: KL of their averaged predictions, which submit writes.\n"
    "recalibrated: after six class biases and a temperature, fitted on out-of-fold rows.\n"
    "difference: single fold models minus out-of-fold; below 0 is better.\n"
    "tie: the interval of the difference contains 0.\n"
    "Intervals: 95%, clustered by patient; wide with few patients."
)


@dataclass(frozen=True, kw_only=True)
class HoldoutScores:
    """One trial, or one blend.

    Attributes:
        name: title of its table.
        single: mean KL of the single fold models; None if undefined, for the reason in a note.
        averaged: KL of the mean of the fold models.
        out_of_fold: of the training rows; nested for a blend; None if unknown.
        recalibrated: KL of the mean of the fold models, after six class biases and a temperature
            that were fitted on the out-of-fold rows; empty if these are unknown.
        optimistic: whether checkpoints were chosen on the out-of-fold rows.
        notes: lines to print below its table.
    """

    name: str
    single: Intervals | None
    averaged: Intervals
    out_of_fold: Intervals | None
    recalibrated: Intervals = field(default_factory=dict)
    optimistic: bool = False
    notes: Sequence[str] = ()

    def differences(self) -> dict[str, Difference | None]:
        """Single fold models minus out-of-fold; None where one of them is unknown."""
        single, oof = self.single or {}, self.out_of_fold or {}
        return {name: _difference(single.get(name), oof.get(name)) for name in OBJECTIVES}

    def patients(self) -> dict[str, int]:
        """Held-out patients with rows of each score."""
        return {name: 0 if one is None else one.n_patients for name, one in self.averaged.items()}

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "name": self.name,
            "patients": self.patients(),
            "single_fold_models": _plain(self.single),
            "mean_of_fold_models": _plain(self.averaged),
            "out_of_fold": _plain(self.out_of_fold),
            "recalibrated": _plain(self.recalibrated),
            "difference": _plain(self.differences()),
            "optimistic": self.optimistic,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True)
class HoldoutReport:
    """All scores of one opening.

    Attributes:
        study: its name.
        n_rows, n_patients: scored.
        scores: of the best trial and, if there is one, of the blend.
        opened_before: earlier openings, oldest first, see ``study.holdout.openings``.
        notes: lines to print above the tables.
    """

    study: str
    n_rows: int
    n_patients: int
    scores: Sequence[HoldoutScores]
    opened_before: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "study": self.study,
            "rows": self.n_rows,
            "patients": self.n_patients,
            "opened_before": [dict(opening) for opening in self.opened_before],
            "scores": [scores.to_json() for scores in self.scores],
            "notes": list(self.notes),
        }


def render_holdout(report: HoldoutReport) -> str:
    """The scores, after a warning if the hold-out was opened before."""
    heading = (
        f"Hold-out of {report.study}: {counted(report.n_rows, 'row')} of "
        f"{counted(report.n_patients, 'patient')}, set aside before the search."
    )
    tables = map(_table, report.scores)
    return to_text(heading, _warning(report), *report.notes, *tables, _LEGEND)


def openings_text(openings: Sequence[Mapping[str, Any]]) -> str:
    """How often a hold-out was opened; when and for what first and last."""
    if not openings:
        return "not opened"
    texts = [f"{_time(opening)} for {_opened(opening)}" for opening in openings]
    shown = texts[0] if len(texts) == 1 else f"first {texts[0]}, last {texts[-1]}"
    return f"opened {counted(len(openings), 'time')}: {shown}"


def _warning(report: HoldoutReport) -> str:
    if not report.opened_before:
        return ""
    return (
        f"This hold-out was {openings_text(report.opened_before)}. Choices made "
        "since then may have used what it showed; the scores below are no test of them."
    )


def _opened(opening: Mapping[str, Any]) -> str:
    number = opening.get("trial")
    trial = f"trial {number:04d}" if isinstance(number, int) else "a trial"
    return f"{trial} of {opening.get('study')}" + (" and the blend" if opening.get("blend") else "")


def _time(opening: Mapping[str, Any]) -> str:
    return f"{str(opening.get('date'))[:16].replace('T', ' ')} UTC"


def _table(scores: HoldoutScores) -> Table:
    differences = scores.differences()
    mark = "*" if scores.optimistic else ""
    columns = (
        Column("rows", [SCORE_NAMES[name] for name in OBJECTIVES], right=False),
        Column(
            f"out-of-fold{mark}",
            [interval_text((scores.out_of_fold or {}).get(name)) for name in OBJECTIVES],
        ),
        Column(
            "single fold models",
            [interval_text((scores.single or {}).get(name)) for name in OBJECTIVES],
        ),
        Column("difference", [difference_text(differences[name]) for name in OBJECTIVES]),
        Column(
            "mean of the fold models",
            [interval_text(scores.averaged.get(name)) for name in OBJECTIVES],
        ),
    )
    legend = (OPTIMISTIC_LEGEND,) if scores.optimistic else ()
    patients = ", ".join(f"{SCORE_NAMES[name]} {n}" for name, n in scores.patients().items())
    means = {name: one.mean for name, one in scores.recalibrated.items() if one is not None}
    corrected = (
        [f"Mean of the fold models, {RECALIBRATED}: {named_scores(means)}."] if means else []
    )
    notes = (f"Held-out patients: {patients}.", *corrected, *scores.notes, *legend)
    return Table(scores.name, columns, notes)


def _difference(first: Interval | None, second: Interval | None) -> Difference | None:
    if first is None or second is None:
        return None
    return independent_difference(first, second)


def _plain(intervals: Mapping[str, Interval | None] | None) -> dict[str, Any] | None:
    if intervals is None:
        return None
    return {name: None if one is None else one.to_json() for name, one in intervals.items()}
