"""Ways to combine models as a table of 80 columns, with what choosing is worth."""

from __future__ import annotations

from collections.abc import Sequence

from hms_ray.evaluate.honest import Difference
from hms_ray.evaluate.method_report import BEST_SINGLE, EQUAL, REFERENCE, MethodReport
from hms_ray.evaluate.metric import OBJECTIVES
from hms_ray.report.text_table import TITLES, WIDTH, Column, score, text_table, wrapped


def render_methods(report: MethodReport, names: Sequence[str], width: int = WIDTH) -> str:
    """Text of the comparison.

    Args:
        report: what to tell.
        names: (M,) the models'.
        width: characters a line.
    """
    lines = [
        *wrapped(_heading(report, names), width),
        "",
        *_scores(report),
        "",
        *_differences(report),
        *wrapped(
            "(mean +- half of its paired 95% interval, clustered by patient; t: a tie. The "
            "best single model is the one that is best in sample.)",
            width,
        ),
        "",
        *wrapped(_used(report), width),
    ]
    return "\n".join(lines)


def _scores(report: MethodReport) -> list[str]:
    """In sample, nested and optimism on the fitted rows, and nested on the others."""
    rated = report.choice.rated
    marks = [
        ("*" if entry.name == report.method else "")
        + ("=" if report.worth is not None and entry.within else "")
        for entry in rated
    ]
    columns = [
        Column("", marks, right=False),
        Column("method", [entry.name for entry in rated], right=False),
        Column("in sample", [score(entry.in_sample) for entry in rated]),
        Column("nested", [score(entry.nested) for entry in rated]),
        Column("opti- mism", [f"{entry.optimism:.4f}" for entry in rated]),
    ]
    for objective, title in TITLES.items():
        if objective != report.choice.objective:
            cells = [score(entry.by_objective[objective]) for entry in rated]
            columns.append(Column(f"nested {title}", cells))
    return text_table([*columns, Column("fit, s", [f"{entry.seconds:.2f}" for entry in rated])])


def _differences(report: MethodReport) -> list[str]:
    rated = report.choice.rated
    columns = [Column("nested, minus", [entry.name for entry in rated], right=False)]
    for other in (BEST_SINGLE, EQUAL, REFERENCE):
        cells = []
        for entry in rated:
            difference = entry.to_reference if other == REFERENCE else entry.to_others[other]
            itself = difference is None or entry.name == other
            cells.append("-" if itself else short_difference(difference))
        title = other if other == BEST_SINGLE else f"{other} weights"
        columns.append(Column(title, cells))
    return text_table(columns)


def short_difference(difference: Difference | None) -> str:
    """Mean and half width of the interval, and ``t`` for a tie; 0.0001 nats."""
    if difference is None:
        return "-"
    half = (difference.high - difference.low) / 2
    # Adding 0 turns the -0.0 of rounding into 0.
    mean = round(difference.mean, 4) + 0.0
    return f"{mean:+.4f}+-{half:.4f} {'t' if difference.tie else ' '}"


def _heading(report: MethodReport, names: Sequence[str]) -> str:
    choice = report.choice
    fewest = OBJECTIVES[choice.objective]
    rows = f"rows of >= {fewest} votes" if fewest else "all rows"
    return (
        f"Ways to combine {len(names)} models, fitted and scored on {rows}: {choice.n_rows:,} of "
        f"{choice.n_patients:,} patients. Nested: {choice.n_splits} splits by patient, mean of "
        f"{len(choice.seeds)}. Best single model: {names[report.best_single]}."
    )


def _used(report: MethodReport) -> str:
    if report.worth is None:
        return f"* {report.method}: the method that was asked for."
    choice, worth = report.choice, report.worth
    best = choice.rated[choice.best].name
    told = [
        f"minus {title} {_told(difference)}"
        for title, difference in (
            ("simplex weights", worth.to_reference),
            ("the best single model", report.worth_to_others[BEST_SINGLE]),
            ("equal weights", report.worth_to_others[EQUAL]),
        )
    ]
    return (
        f"* {report.method}: chosen on the scored rows, the simplest within one standard error "
        f"(=) of the best one, {best}; its own nested figure is optimistic by what choosing "
        f"gains. Choosing itself, on other patients: {worth.nested.mean:.4f}; "
        f"{'; '.join(told)}."
    )


def _told(difference: Difference) -> str:
    verdict = "a tie" if difference.tie else difference.verdict
    return f"{difference.mean:+.4f} ({difference.low:+.4f} to {difference.high:+.4f}, {verdict})"
