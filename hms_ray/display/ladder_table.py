"""The tables of a ladder: scores, differences, cost, weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from hms_ray.display.cells import (
    OPTIMISTIC_LEGEND,
    TIE_LEGEND,
    difference_text,
    ends_text,
    interval_text,
    score_text,
)
from hms_ray.display.combined_report import CombinedReport, CombinedStep
from hms_ray.display.ladder_published import published_table
from hms_ray.display.ladder_report import ORACLES, LadderReport, StepLine
from hms_ray.display.tables import Column, Table, to_text
from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.evaluate.step_scores import GroupScore
from hms_ray.text import counted

SIMULATED: Final = "simulated data"
TIE_NOTE: Final = TIE_LEGEND.removesuffix(".") + ", or the difference prints as 0."
SAME_NOTE: Final = (
    "same: both predict exactly the same, because at this scale they are one experiment; nothing "
    "was compared."
)
DETECTABLE_NOTE: Final = (
    "The true difference that these rows would show with a probability of 80%; a tie does not "
    "exclude smaller ones."
)
RECALIBRATED_NOTE: Final = (
    "both sides corrected by class biases and a temperature, fitted on other patients' rows of "
    "the same group. A difference that disappears here came from class shares or confidence."
)


def render_ladder(report: LadderReport, width: int | None = None) -> str:
    """Summary and tables as text.

    Args:
        report: of the ladder.
        width: characters per line; default: as ``to_text``.
    """
    return to_text(heading(report), verdict(report), *ladder_tables(report), width=width)


def heading(report: LadderReport) -> str:
    """How many steps, on how many rows of which data."""
    return (
        f"Ladder of {counted(len(report.steps), 'step')} on {data_text(report)}: "
        f"{counted(report.n_rows('kl_all'), 'row')} of "
        f"{counted(report.n_patients(), 'patient')}, "
        f"{counted(report.n_rows('kl_4'), 'row')} with >= 4 and "
        f"{report.n_rows('kl_10'):,} with >= 10 votes; scale {report.about['scale']}, "
        f"seed {report.about['seed']}."
    )


def verdict(report: LadderReport) -> str:
    """The lowest score, and how many steps are better than their baseline."""
    lowest = min(report.steps, key=lambda step: (step.scores["kl_all"].kl.mean, step.name))
    text = f"Lowest KL all: {interval_text(lowest.interval('kl_all'))}, step {lowest.name}."
    differences = [step.scores["kl_all"].difference for step in report.steps]
    counts = Counter(
        "same" if found.same else found.verdict for found in differences if found is not None
    )
    if not counts:
        return text
    verdicts = [
        f"{name} {counts[name]}" for name in ("better", "tie", "worse", "same") if counts[name]
    ]
    return f"{text} Steps against their baselines by KL all: {', '.join(verdicts)}."


def ladder_tables(report: LadderReport) -> list[Table]:
    """Every table of a ladder."""
    return [
        _steps(report),
        _differences(report, recalibrated=False),
        _differences(report, recalibrated=True),
        _scores(report),
        _bootstraps(report),
        *_oracles(report),
        _detectable(report),
        _recalibrated(report),
        published_table(report, step_column(report.steps)),
        _cost(report),
        *_weights(report),
    ]


def step_column(steps: Iterable[StepLine | CombinedStep]) -> Column:
    """Name of each step, with the mark of optimistic scores."""
    names = [step.name + (" *" if step.optimistic else "") for step in steps]
    return Column("step", names, right=False)


def baseline_column(steps: Iterable[StepLine | CombinedStep]) -> Column:
    """Name of each step's baseline."""
    return Column("baseline", [step.before or "-" for step in steps], right=False, optional=True)


def data_text(report: LadderReport | CombinedReport) -> str:
    """Whether the data are simulated, in words."""
    return SIMULATED if report.simulated else "recorded data"


def _legend(report: LadderReport) -> tuple[str, ...]:
    return (OPTIMISTIC_LEGEND,) if any(step.optimistic for step in report.steps) else ()


def _by_objective(
    report: LadderReport, cell: Callable[[StepLine, GroupScore, str], str]
) -> list[Column]:
    """One column per objective, ``-`` in groups without rows."""
    columns = []
    for group, title in SCORE_NAMES.items():
        cells = [
            "-" if (found := step.scores.get(group)) is None else cell(step, found, group)
            for step in report.steps
        ]
        columns.append(Column(title, cells))
    return columns


def _steps(report: LadderReport) -> Table:
    columns = (
        step_column(report.steps),
        baseline_column(report.steps),
        Column("chain", [step.chain for step in report.steps], right=False, optional=True),
        Column("change", [step.change for step in report.steps], right=False),
    )
    notes = _legend(report)
    if same := report.same_experiments():
        names = "; ".join(", ".join(group) for group in same)
        notes += (f"One experiment under several names at this scale, trained once: {names}.",)
    return Table("Steps", columns, notes)


def _scores(report: LadderReport) -> Table:
    columns = _by_objective(report, lambda step, found, group: interval_text(found.kl))
    note = (
        "KL divergence of out-of-fold predictions in nats, lower is better, with its 95% interval, "
        "clustered by patient."
    )
    return Table("Scores", (step_column(report.steps), *columns), (note, *_legend(report)))


def _bootstraps(report: LadderReport) -> Table:
    columns = _by_objective(report, lambda step, found, group: ends_text(found.bootstrap))
    note = "95% percentile interval of 2,000 bootstrap samples of patients, a check."
    return Table("Scores: intervals by bootstrap", (step_column(report.steps), *columns), (note,))


def _oracles(report: LadderReport) -> list[Table]:
    tables = []
    for oracle, description in ORACLES.items():
        if oracle not in (report.about["floors"] or {}):
            continue

        def cell(step: StepLine, found: GroupScore, group: str, oracle: str = oracle) -> str:
            distance = report.oracle_distance(step, oracle, group)
            if distance is None:
                return "-"
            share = "-" if distance.share is None else f"{distance.share:.0%}"
            return f"{distance.above:+.4f} {share:>4}"

        note = (
            "KL minus that of the oracle, and the share of the distance from the class means to "
            "the oracle that the step closes."
        )
        columns = (step_column(report.steps), *_by_objective(report, cell))
        tables.append(Table(f"Distance to {description}", columns, (note,)))
    return tables


def _differences(report: LadderReport, *, recalibrated: bool) -> Table:
    def cell(step: StepLine, found: GroupScore, group: str) -> str:
        return difference_text(found.recalibrated_difference if recalibrated else found.difference)

    title, notes = "Difference to the baseline", ["Below 0 the step is better.", TIE_NOTE]
    if recalibrated:
        title += ", both recalibrated"
        notes.append(f"Recalibrated: {RECALIBRATED_NOTE}")
    if any(
        score.difference is not None and score.difference.same
        for step in report.steps
        for score in step.scores.values()
    ):
        notes.append(SAME_NOTE)
    columns = (
        step_column(report.steps),
        baseline_column(report.steps),
        *_by_objective(report, cell),
    )
    return Table(title, columns, tuple(notes))


def detectable_text(found: GroupScore | None, *, recalibrated: bool) -> str:
    """The smallest detectable difference; ``-`` if nothing was compared."""
    if found is None:
        return "-"
    chosen = found.recalibrated_difference if recalibrated else found.difference
    if chosen is None or chosen.same or not math.isfinite(chosen.detectable):
        return "-"
    return score_text(chosen.detectable)


def _detectable(report: LadderReport) -> Table:
    columns = [step_column(report.steps)]
    for recalibrated in (False, True):
        for group, title in SCORE_NAMES.items():
            cells = [
                detectable_text(step.scores.get(group), recalibrated=recalibrated)
                for step in report.steps
            ]
            columns.append(Column(f"{title} recalibrated" if recalibrated else title, cells))
    return Table("Smallest detectable difference", tuple(columns), (DETECTABLE_NOTE,))


def _recalibrated(report: LadderReport) -> Table:
    columns = _by_objective(report, lambda step, found, group: interval_text(found.recalibrated))
    note = "Each row corrected by a fit on other patients' rows of the same group."
    return Table("Scores after recalibration", (step_column(report.steps), *columns), (note,))


def _cost(report: LadderReport) -> Table:
    columns = (
        step_column(report.steps),
        Column("fold-minutes", [f"{step.fold_minutes:.1f}" for step in report.steps]),
        Column("saved", [f"{step.saved_minutes:.1f}" for step in report.steps]),
        Column("spent", [f"{step.fold_minutes - step.saved_minutes:.1f}" for step in report.steps]),
    )
    total, saved = report.trained_minutes()
    notes = (
        "The cost of a blend is that of its members.",
        f"All experiments, each counted once: {total:.1f} fold-minutes; stages reused from the "
        f"fold store saved {saved:.1f}" + (f" ({saved / total:.0%})." if total else "."),
    )
    return Table("Cost", columns, notes)


def _weights(report: LadderReport) -> list[Table]:
    """Members and weights of the blends; no table without blends."""
    blends = [step for step in report.steps if step.weights is not None]
    if not blends:
        return []
    members = [
        " + ".join(f"{weight:.3f} {name}" for name, weight in (step.weights or {}).items()) or "-"
        for step in blends
    ]
    columns = (
        Column("step", [step.name for step in blends], right=False),
        Column("weights", [step.kind.removesuffix("_blend") for step in blends], right=False),
        Column("members", members, right=False),
    )
    note = (
        "Optimised weights are fitted on all patients; the score of the blend uses weights "
        "fitted on other patients. Those of log_linear are exponents of probabilities, which may "
        "be negative and need not sum to 1."
    )
    notes = (note,) if any(step.kind == "optimised_blend" for step in blends) else ()
    return [Table("Weights of blends", columns, notes)]
