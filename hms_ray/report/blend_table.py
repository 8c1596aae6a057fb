"""A blend's report as text: weights, certificate, methods, comparisons, what to expect."""

from __future__ import annotations

import math

import numpy as np

from hms_ray.ensemble.result import (
    BEST_IN_SAMPLE,
    BEST_SINGLE,
    EQUAL,
    SIMPLEX,
    BlendReport,
)
from hms_ray.evaluate.intervals import Difference, Interval
from hms_ray.evaluate.metric import OBJECTIVES, SCORE_NAMES
from hms_ray.report.text_table import (
    WIDTH,
    Column,
    score,
    shortened_names,
    text_table,
    wrapped,
)
from hms_ray.text import counted

SMALLEST_SHOWN = 0.00005
"""Weights below this print as 0.0000, so they are counted and not listed."""

_CALLED = {
    BEST_IN_SAMPLE: "the best single model, chosen in sample",
    BEST_SINGLE: "the best single model, chosen on other patients",
    EQUAL: "equal weights",
    SIMPLEX: "simplex weights",
}
_SHORT = {
    BEST_IN_SAMPLE: "best single, in sample",
    BEST_SINGLE: "best single, nested",
    EQUAL: "equal weights",
    SIMPLEX: "simplex weights",
}
_OPTIMISTIC_LEGEND = "* optimistic: its checkpoints or weights were chosen on the scored rows"
_DIFFERENCES = "(mean +- half of its paired 95% interval, clustered by patient; t: a tie)"


def render_blend(report: BlendReport, width: int = WIDTH) -> str:
    """Text of a blend's report.

    Args:
        report: what to tell.
        width: characters a line.
    """
    parts = [
        _heading(report, width),
        _weights(report, width),
        _methods(report, width),
        _candidates(report) if report.worth is not None else [],
        _comparisons(report),
        _verdict(report, width),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def difference_text(difference: Difference | None) -> str:
    """Mean, half width of the interval, and ``t`` for a tie; 0.0001 nats."""
    if difference is None:
        return "-"
    half = (difference.high - difference.low) / 2
    width = f"{half:.4f}" if math.isfinite(half) else "?"
    return f"{_signed(difference.mean)}+-{width} {'t' if difference.tie else ' '}"


def rows_text(objective: str) -> str:
    """The rows of an objective, in words."""
    fewest = OBJECTIVES[objective]
    return f"rows of >= {fewest} votes" if fewest else "all rows"


def _heading(report: BlendReport, width: int) -> list[str]:
    objective = report.choice.objective
    chosen = "" if report.worth is None else ", chosen by nested KL"
    own = _own_rows(report)
    used = f"fitted on {rows_text(own)}, scored" if own else "fitted and scored"
    text = (
        f"Blend of {counted(len(report.names), 'model')} on {report.n_rows['kl_all']:,} rows of "
        f"{report.n_patients:,} patients; {used} on {rows_text(objective)} "
        f"({report.n_rows[objective]:,}). Method: {report.method}{chosen}."
    )
    certificate = _certificate(report)
    return wrapped(text, width) + (wrapped(certificate, width) if certificate else [])


def _own_rows(report: BlendReport) -> str | None:
    """The objective of a method with rows of its own: its name, simplex@kl_4, says it."""
    rows = report.method.partition("@")[2]
    return rows if rows in OBJECTIVES else None


def _certificate(report: BlendReport) -> str:
    if report.gap is None:
        return ""
    own = _own_rows(report)
    there = f" on {rows_text(own)}" if own else ""
    facts = getattr(report.fitted, "facts", {})
    bound = f"Certificate: at most {report.gap:.1e} above the lowest"
    if "iterations" in facts:
        steps = counted(facts["iterations"], "Newton step")
        return f"{bound} KL that any weights reach{there} ({steps})."
    if "corners" in facts:
        met = counted(facts["corners"], "corner")
        return f"{bound} KL that weights within the caps and fixed weights reach ({met} met)."
    return f"{bound} loss of its kind{there}."


def _weights(report: BlendReport, width: int) -> list[str]:
    weights, nested = report.weights, report.nested.weights
    if weights is None:
        return []
    order = np.argsort(-weights, kind="stable").tolist()
    shown = [number for number in order if weights[number] >= SMALLEST_SHOWN]
    columns = [Column("weight", [f"{weights[number]:.4f}" for number in shown])]
    if nested is not None:
        ranges = [f"{nested[:, n].min():.2f}-{nested[:, n].max():.2f}" for n in shown]
        columns.append(Column("nested range", ranges))
    room = width - sum(column.width + 2 for column in columns)
    cut = shortened_names([report.names[number] for number in shown], room - 2)
    names = [
        name + (" *" if report.optimistic[number] else "")
        for name, number in zip(cut, shown, strict=True)
    ]
    lines = text_table([*columns, Column("model", names, right=False)])
    if len(shown) < len(weights):
        lines.append(f"weight 0: {counted(len(weights) - len(shown), 'other model')}")
    if any(report.optimistic[number] for number in shown):
        lines.append(_OPTIMISTIC_LEGEND)
    return lines


def _methods(report: BlendReport, width: int) -> list[str]:
    """In sample, nested and optimism on the fitted rows, and nested on the others."""
    rated, objective = report.choice.rated, report.choice.objective
    marks = [
        (">" if entry.name == report.method else "")
        + ("=" if report.worth is not None and entry.within else "")
        for entry in rated
    ]
    columns = [
        Column("in sample", [score(entry.in_sample) for entry in rated]),
        Column("nested", [score(entry.nested) for entry in rated]),
        Column("opti- mism", [_signed(entry.optimism, "") for entry in rated]),
        *(
            Column(f"nested {title}", [score(entry.by_objective[name]) for entry in rated])
            for name, title in SCORE_NAMES.items()
            if name != objective
        ),
        Column("fit, s", [f"{entry.seconds:.2f}" for entry in rated]),
    ]
    mark = Column("", marks, right=False)
    room = width - sum(column.width + 2 for column in (mark, *columns))
    names = shortened_names([entry.name for entry in rated], room)
    lines = text_table([mark, Column("method", names, right=False), *columns])
    legend = (
        f"(on {rows_text(objective)}, and nested on others; nested: fitted or chosen on other "
        f"patients, {report.choice.n_splits} splits, mean of {len(report.choice.seeds)}; "
        "> is used)"
    )
    return [*lines, *wrapped(legend, width)]


def _candidates(report: BlendReport) -> list[str]:
    """Each method against what a person would use instead, on the fitted rows."""
    rated = report.choice.rated
    columns = [Column("nested, minus", [entry.name for entry in rated], right=False)]
    for other in (BEST_SINGLE, EQUAL, SIMPLEX):
        cells = [
            "-" if entry.name == other else difference_text(entry.to_others[other])
            for entry in rated
        ]
        columns.append(Column(_SHORT[other], cells))
    return [*text_table(columns), _DIFFERENCES]


def _comparisons(report: BlendReport) -> list[str]:
    used = "choosing, nested," if report.worth is not None else "the blend, nested,"
    comparisons = report.nested.comparisons
    alternatives = [_SHORT[one.against] for one in comparisons]
    columns = [Column(f"{used} minus", alternatives, right=False)]
    for objective in OBJECTIVES:
        cells = [difference_text(one.differences[objective]) for one in comparisons]
        columns.append(Column(SCORE_NAMES[objective], cells))
    return [*text_table(columns), _DIFFERENCES]


def _verdict(report: BlendReport, width: int) -> list[str]:
    paragraphs = [*_chosen(report), _expected(report)]
    for comparison in report.nested.comparisons:
        if comparison.against == BEST_SINGLE:
            continue
        verdict = "a tie with" if comparison.verdict == "tie" else f"{comparison.verdict} than"
        alternative = _CALLED[comparison.against]
        if comparison.against == BEST_IN_SAMPLE:
            # With its brackets and colon it must fit a line.
            alternative += f" ({shortened_names(report.names, width - 3)[report.best]})"
        paragraphs.append(
            f"It is {verdict} {alternative}: {_signed(comparison.fitted.mean)}, "
            f"{_interval(comparison.fitted, comparison.bootstrap, '+')}."
        )
    n_optimistic = sum(report.optimistic)
    if n_optimistic:
        paragraphs.append(
            f"Optimistic: checkpoints or weights of {n_optimistic} of "
            f"{counted(len(report.names), 'model')} were chosen on the rows that are scored here, "
            "which flatters every figure."
        )
    return [line for paragraph in paragraphs for line in wrapped(paragraph, width)]


def _chosen(report: BlendReport) -> list[str]:
    choice, worth = report.choice, report.worth
    if worth is None:
        return []
    taken = ", ".join(f"{name} {count}" for name, count in worth.taken.items())
    n_choices, n_inner = sum(worth.taken.values()), worth.n_inner
    best = choice.rated[choice.best].name
    why = f"the simplest within one standard error (=) of the best one, {best}"
    if best == report.method:
        why = "the best one, and no simpler one is within one standard error (=) of it"
    used = (
        f"{report.method}: chosen on the scored rows, {why}; its own nested figure is "
        "optimistic by what choosing gains."
    )
    choosing = (
        f"Choosing itself was tried on other patients: {n_choices} choices, each by {n_inner} "
        f"splitting{'' if n_inner == 1 else 's'} of the others, took {taken}; the "
        "last table and the figures below are of choosing."
    )
    return [used, choosing]


def _expected(report: BlendReport) -> str:
    found = report.nested.interval
    return (
        f"To expect on {rows_text(report.choice.objective)} of new patients: "
        f"{found.mean:.4f}, {_interval(found, report.nested.bootstrap)}."
    )


def _interval(interval: Interval, bootstrap: Interval, sign: str = "") -> str:
    low, high, drawn_low, drawn_high = (
        _signed(end, sign) for end in (interval.low, interval.high, bootstrap.low, bootstrap.high)
    )
    return f"95% interval {low} to {high} (bootstrap {drawn_low} to {drawn_high})"


def _signed(value: float, sign: str = "+") -> str:
    # Adding 0 turns the -0.0 of rounding into 0.
    return f"{round(value, 4) + 0.0:{sign}.4f}"
