"""A blend's report as text: verdict, weights, methods, comparisons."""

from __future__ import annotations

import numpy as np

from hms_ray.display.cells import (
    difference_text,
    ends_text,
    interval_text,
    rows_text,
    score_text,
    signed,
)
from hms_ray.display.tables import Column, Table, to_text
from hms_ray.ensemble.result import (
    BEST_IN_SAMPLE,
    BEST_SINGLE,
    EQUAL,
    SIMPLEX,
    BlendReport,
)
from hms_ray.evaluate.metric import OBJECTIVES, SCORE_NAMES
from hms_ray.text import counted

SMALLEST_SHOWN = 0.00005
"""Weights below this print as 0.0000, so they are counted and not listed."""

ALTERNATIVES = {
    BEST_IN_SAMPLE: "best single model, chosen in sample",
    BEST_SINGLE: "best single model, nested",
    EQUAL: "equal weights",
    SIMPLEX: "simplex weights",
}
"""Alternative that a blend is compared with -> what texts call it."""
_OPTIMISTIC_LEGEND = "* optimistic: its checkpoints or weights were chosen on the scored rows."
_DIFFERENCES = (
    "Nested KL minus that of the alternative, with the paired 95% interval, clustered by "
    "patient; below 0 is better; tie: the interval contains 0."
)


def render_blend(report: BlendReport, width: int | None = None) -> str:
    """A blend's report: data, verdict, then the tables.

    Args:
        report: of the blend.
        width: characters per line; default: as ``to_text``.
    """
    tables = [*_weights(report), _methods(report)]
    if report.selection_estimate is not None:
        tables.append(_candidates(report))
    return to_text(_heading(report), *_verdict(report), *tables, _comparisons(report), width=width)


def _heading(report: BlendReport) -> str:
    objective, own = report.selection.objective, _own_rows(report)
    used = f"fitted on {rows_text(own)}, scored" if own else "fitted and scored"
    return (
        f"Blend of {counted(len(report.names), 'model')}: {report.n_rows['kl_all']:,} rows of "
        f"{report.n_patients:,} patients, {used} on {rows_text(objective)} "
        f"({report.n_rows[objective]:,})."
    )


def _own_rows(report: BlendReport) -> str | None:
    """The objective of a method with rows of its own, as in its name, simplex@kl_4."""
    rows = report.method.partition("@")[2]
    return rows if rows in OBJECTIVES else None


def _verdict(report: BlendReport) -> list[str]:
    found = report.nested
    chosen = "" if report.selection_estimate is None else ", chosen by nested KL"
    best = report.names[report.best]
    names = {BEST_IN_SAMPLE: f"the best single model, {best}", EQUAL: "equal weights"}
    compared = [
        f"Against {names[one.against]}: {difference_text(one.fitted)}."
        for one in found.comparisons
        if one.against in names
    ]
    estimate = (
        f"Method {report.method}{chosen}: estimated out-of-sample "
        f"{SCORE_NAMES[report.selection.objective]} {interval_text(found.interval)}."
    )
    parts = [" ".join([estimate, *compared, _advice(report)]), _how_chosen(report)]
    n_optimistic = sum(report.optimistic)
    if n_optimistic:
        parts.append(
            f"Optimistic: the checkpoints or weights of {n_optimistic} of "
            f"{counted(len(report.names), 'model')} were chosen on the scored rows; KL on "
            "new patients will probably be higher."
        )
    return parts


def _advice(report: BlendReport) -> str:
    verdicts = {one.against: one.verdict for one in report.nested.comparisons}
    best, single = report.names[report.best], verdicts.get(BEST_IN_SAMPLE)
    if single == "worse":
        return f"Use {best} alone."
    # That model was chosen on the scored rows, which favours it.
    if single == "tie" and verdicts.get(BEST_SINGLE) != "better":
        return f"Use {best} alone: it is simpler, and these rows do not show that it is worse."
    if verdicts.get(EQUAL) == "worse":
        return "Use equal weights (--method equal)."
    if verdicts.get(EQUAL) == "tie":
        return "Equal weights (--method equal) are simpler and not shown to be worse."
    return "Use this blend."


def _how_chosen(report: BlendReport) -> str:
    selection, estimate = report.selection, report.selection_estimate
    if estimate is None:
        return ""
    best = selection.candidates[selection.best].name
    why = f"the simplest method within one standard error of the best, {best}"
    if best == report.method:
        why = "the best method, and no simpler one is within one standard error of it"
    taken = ", ".join(f"{name} {count}" for name, count in estimate.times_chosen.items())
    return (
        f"Method {report.method} is {why}. It was chosen on the scored rows, so its own nested "
        "KL is optimistic. The estimate and the comparisons above repeat the choice on other "
        f"patients, {counted(sum(estimate.times_chosen.values()), 'time')}: {taken}."
    )


def _certificate(report: BlendReport) -> str:
    if report.gap is None:
        return ""
    own = _own_rows(report)
    there = f" on {rows_text(own)}" if own else ""
    facts = getattr(report.fitted, "facts", {})
    bound = f"Certificate: at most {report.gap:.1e} above the lowest"
    if "iterations" in facts:
        steps = counted(facts["iterations"], "Newton step")
        return f"{bound} KL of any weights{there} ({steps})."
    if "corners" in facts:
        met = counted(facts["corners"], "corner")
        return f"{bound} KL of weights that satisfy the family limits and fixed weights ({met})."
    return f"{bound} value of the method's loss{there}."


def _weights(report: BlendReport) -> list[Table | str]:
    weights, nested = report.weights, report.nested.weights
    certificate = _certificate(report)
    if weights is None:
        return [certificate]
    order = np.argsort(-weights, kind="stable").tolist()
    shown = [number for number in order if weights[number] >= SMALLEST_SHOWN]
    columns = [
        Column(
            "model",
            [report.names[n] + (" *" if report.optimistic[n] else "") for n in shown],
            right=False,
        ),
        Column("weight", [f"{weights[number]:.4f}" for number in shown]),
    ]
    if nested is not None:
        ranges = [f"{nested[:, n].min():.2f} to {nested[:, n].max():.2f}" for n in shown]
        columns.append(Column("nested range", ranges))
    notes = [certificate] if certificate else []
    if len(shown) < len(weights):
        notes.insert(0, f"{counted(len(weights) - len(shown), 'other model')}: weight 0.")
    if any(report.optimistic[number] for number in shown):
        notes.append(_OPTIMISTIC_LEGEND)
    return [Table("Weights", tuple(columns), tuple(notes))]


def _methods(report: BlendReport) -> Table:
    """In-sample KL, nested KL and optimism on the fitted rows, nested KL on the others."""
    rated, objective = report.selection.candidates, report.selection.objective
    states = [
        "used"
        if entry.name == report.method
        else "within 1 SE"
        if report.selection_estimate is not None and entry.within_one_se
        else ""
        for entry in rated
    ]
    columns = [
        Column("method", [entry.name for entry in rated], right=False),
        Column("state", states, right=False),
        Column("in-sample", [score_text(entry.in_sample) for entry in rated]),
        Column("nested", [score_text(entry.nested) for entry in rated]),
        Column("optimism", [signed(entry.optimism, "") for entry in rated]),
        *(
            Column(
                f"nested {title}",
                [score_text(entry.by_objective[name]) for entry in rated],
                optional=True,
            )
            for name, title in SCORE_NAMES.items()
            if name != objective
        ),
        Column("fit, s", [f"{entry.fit_seconds:.2f}" for entry in rated], optional=True),
    ]
    note = (
        f"Nested: fitted on other patients, {report.selection.n_splits} splits, mean of "
        f"{counted(len(report.selection.seeds), 'repeat')}. Optimism: nested minus in-sample KL."
    )
    if report.selection_estimate is not None:
        note += " SE: standard error of the difference to the best method."
    return Table(f"Methods, {SCORE_NAMES[objective]}", tuple(columns), (note,))


def _candidates(report: BlendReport) -> Table:
    """Each method against the alternatives, on the fitted rows."""
    rated = report.selection.candidates
    columns = [Column("method", [entry.name for entry in rated], right=False)]
    for other in (BEST_SINGLE, EQUAL, SIMPLEX):
        cells = [
            "-" if entry.name == other else difference_text(entry.minus_others[other])
            for entry in rated
        ]
        columns.append(Column(f"against {ALTERNATIVES[other]}", cells))
    title = f"Methods against alternatives, {SCORE_NAMES[report.selection.objective]}"
    return Table(title, tuple(columns), (_DIFFERENCES,))


def _comparisons(report: BlendReport) -> Table:
    found = report.nested
    columns = [
        Column(
            "alternative",
            [ALTERNATIVES[one.against] for one in found.comparisons],
            right=False,
        )
    ]
    for objective, title in SCORE_NAMES.items():
        cells = [difference_text(one.differences[objective]) for one in found.comparisons]
        columns.append(Column(title, cells))
    drawn = [ends_text(one.bootstrap, "+") for one in found.comparisons]
    columns.append(Column("bootstrap", drawn, optional=True))
    note = (
        f"bootstrap: 95% interval of {SCORE_NAMES[report.selection.objective]} by resampling "
        f"patients, a check; of the estimate itself: {ends_text(found.bootstrap)}."
    )
    used = report.method if report.selection_estimate is None else "The chosen method"
    return Table(f"{used} against alternatives", tuple(columns), (_DIFFERENCES, note))
