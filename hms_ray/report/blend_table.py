"""A blend's report as text: weights, certificate, estimates, comparisons."""

from __future__ import annotations

import math

from hms_ray.evaluate.blend_report import BEST_SINGLE, BEST_TRIAL, BlendReport
from hms_ray.evaluate.comparison import Comparison
from hms_ray.evaluate.honest import Difference
from hms_ray.evaluate.metric import OBJECTIVES
from hms_ray.report.text_table import (
    OPTIMISTIC_LEGEND,
    TITLES,
    WIDTH,
    Column,
    score,
    shortened,
    text_table,
    wrapped,
)

SMALLEST_SHOWN = 0.00005
"""Weights below this print as 0.0000, so they are counted and not listed."""


def render_blend(report: BlendReport, width: int = WIDTH) -> str:
    """Text of a blend's report.

    Args:
        report: what to tell.
        width: characters a line.
    """
    parts = [
        _heading(report, width),
        _weights(report, width),
        _methods(report),
        _comparisons(report),
        _verdict(report, width),
    ]
    return "\n\n".join("\n".join(part) for part in parts)


def _heading(report: BlendReport, width: int) -> list[str]:
    rows = report.n_rows["kl_all"]
    fitted = report.n_rows[report.fit_rows]
    text = (
        f"Blend of {len(report.names)} models on {rows:,} rows of {report.n_patients:,} patients; "
        f"weights fitted on {_tier(report.fit_rows)} ({fitted:,})."
    )
    certificate = (
        f"Certificate: at most {report.fit.gap:.1e} above the lowest KL that any weights "
        f"reach ({report.fit.iterations} Newton steps)."
    )
    return [*wrapped(text, width), *wrapped(certificate, width)]


def _weights(report: BlendReport, width: int) -> list[str]:
    weights = report.fit.weights
    shown = sorted(
        (number for number in range(len(weights)) if weights[number] >= SMALLEST_SHOWN),
        key=lambda number: (-weights[number], number),
    )
    nested = report.nested_weights
    columns = [
        Column("weight", [f"{weights[number]:.4f}" for number in shown]),
        Column(
            "nested range",
            [f"{nested[:, n].min():.2f}-{nested[:, n].max():.2f}" for n in shown],
        ),
    ]
    room = width - sum(column.width + 2 for column in columns)
    names = [
        shortened(report.names[number], room - 2) + (" *" if report.optimistic[number] else "")
        for number in shown
    ]
    lines = text_table([*columns, Column("model", names, right=False)])
    if len(shown) < len(weights):
        lines.append(f"weight 0: {len(weights) - len(shown)} other model(s)")
    if any(report.optimistic[number] for number in shown):
        lines.append(OPTIMISTIC_LEGEND)
    return lines


def _methods(report: BlendReport) -> list[str]:
    names, estimates = [], []
    for method in report.methods:
        names += [method.name, ""]
        estimates += ["in sample", "nested by patient"]
    columns = [Column("", names, right=False), Column("", estimates, right=False)]
    for objective, title in TITLES.items():
        cells = [
            score(scores[objective])
            for method in report.methods
            for scores in (method.in_sample, method.nested)
        ]
        columns.append(Column(title, cells))
    return text_table(columns)


def _comparisons(report: BlendReport) -> list[str]:
    alternatives = [_alternative(comparison) for comparison in report.comparisons]
    columns = [Column("nested blend minus", alternatives, right=False)]
    for objective in OBJECTIVES:
        cells = [
            difference_text(comparison.differences[objective]) for comparison in report.comparisons
        ]
        columns.append(Column(TITLES[objective], cells))
    return [
        *text_table(columns),
        "(mean +- half of its paired 95% interval, clustered by patient; t: a tie)",
    ]


def difference_text(difference: Difference | None) -> str:
    """Mean, half width of the interval, and ``t`` for a tie; 0.0001 nats."""
    if difference is None:
        return "-"
    half = (difference.high - difference.low) / 2
    width = f"{half:.4f}" if math.isfinite(half) else "?"
    return f"{difference.mean:+.4f}+-{width} {'t' if difference.tie else ' '}"


def _verdict(report: BlendReport, width: int) -> list[str]:
    lines = []
    for comparison in report.comparisons:
        if comparison.against == BEST_SINGLE:
            continue
        difference, bootstrap = comparison.fitted, comparison.bootstrap
        other = comparison.against
        if other == BEST_TRIAL:
            other += f", in sample ({report.names[report.best]})"
        verdict = {
            "tie": "a tie with",
            "better": "better than",
            "worse": "worse than",
        }[comparison.verdict]
        text = (
            f"On {_tier(report.fit_rows)} the blend is {verdict} {other}: "
            f"{difference.mean:+.4f}, "
            f"95% interval {difference.low:+.4f} to {difference.high:+.4f} "
            f"(bootstrap {bootstrap.low:+.4f} to {bootstrap.high:+.4f})."
        )
        lines += wrapped(text, width)
    text = (
        f"Nested: fitted or chosen on other patients, {report.n_splits} splits, "
        f"mean of {report.n_repeats}."
    )
    lines += wrapped(text, width)
    n_optimistic = sum(report.optimistic)
    if n_optimistic:
        text = (
            f"Optimistic: the checkpoints of {n_optimistic} of {len(report.names)} models were "
            "chosen on the rows that are scored here, which flatters every figure above."
        )
        lines += wrapped(text, width)
    return lines


def _alternative(comparison: Comparison) -> str:
    """The alternative, and on which rows it was chosen; short, for three columns follow."""
    short = {BEST_TRIAL: f"{BEST_SINGLE}, in sample", BEST_SINGLE: f"{BEST_SINGLE}, nested"}
    return short.get(comparison.against, comparison.against)


def _tier(objective: str) -> str:
    fewest = OBJECTIVES[objective]
    return f"rows of >= {fewest} votes" if fewest else "all rows"
