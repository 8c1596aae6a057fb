"""A search space in words: its parameters, size, first trials and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hms_ray.display.tables import Column, Table, to_text
from hms_ray.text import counted


@dataclass(frozen=True)
class ParameterRow:
    """A searched value.

    Attributes:
        path: dotted path into the experiment.
        kind: ``integer``, ``number``, ``text``, ``true or false``, ``label`` or ``mixed``.
        values: values or range, in words.
        condition: when it is searched; empty: always.
        own: the experiment's own value, in words.
    """

    path: str
    kind: str
    values: str
    condition: str
    own: str


@dataclass(frozen=True)
class SpaceFacts:
    """All that ``hms-ray space`` prints.

    Attributes:
        name: of the space.
        method: and settings, in words.
        parameters: in the order of the file.
        n_points: None if a range of real numbers has no step.
        n_experiments: different experiments among the points; None if they were not listed.
        n_invalid: points whose values exclude each other; None if they were not listed.
        draws: first trials: origin and values.
        budget: limits, in words.
        pruning: the rule, in words; empty: no trial is pruned.
        notes: warnings that follow from the rows.
        visits: least, mean and largest number of image visits per trial; None without rows.
    """

    name: str
    method: str
    parameters: Sequence[ParameterRow]
    n_points: int | None
    n_experiments: int | None
    n_invalid: int | None
    draws: Sequence[tuple[str, dict[str, object]]]
    budget: str
    visits: tuple[float, float, float] | None
    pruning: str = ""
    notes: Sequence[str] = ()


def render_space(facts: SpaceFacts) -> str:
    """A search space as text."""
    if not facts.parameters:
        size = "nothing is searched: one experiment"
    elif facts.n_points is None:
        size = "without limit: a range of real numbers has no step"
    else:
        size = counted(facts.n_points, "point")
        if facts.n_experiments is not None:
            size += f", {counted(facts.n_experiments, 'different experiment')}"
        if facts.n_invalid:
            size += f"; {counted(facts.n_invalid, 'point')} with values that exclude each other"
    cost = "hms-ray space FILE --data DIR counts image visits; hms-ray bench measures hours"
    if facts.visits is not None:
        low, mean, high = facts.visits
        cost = f"{mean:,.0f} image visits per trial"
        if low < high:
            cost += f" ({low:,.0f} to {high:,.0f})"
        cost += "; hms-ray bench measures hours"
    lines = [
        f"{facts.name}: {facts.method}",
        f"size: {size}",
        f"budget: {facts.budget}",
        f"cost: {cost}",
        *([facts.pruning] if facts.pruning else []),
    ]
    parts: list[str | Table] = ["\n".join(lines)]
    if facts.parameters:
        rows = facts.parameters
        columns = [
            Column("parameter", [row.path for row in rows], right=False),
            Column("type", [row.kind for row in rows], right=False),
            Column("values", [row.values for row in rows], right=False),
            Column("experiment", [row.own for row in rows], right=False),
        ]
        if any(row.condition for row in rows):
            columns.insert(3, Column("when", [row.condition for row in rows], right=False))
        parts.append(Table("Parameters", tuple(columns)))
    if facts.draws:
        parts.append(_draws_table(facts))
    parts += facts.notes
    return to_text(*parts)


def _draws_table(facts: SpaceFacts) -> Table:
    paths = [row.path for row in facts.parameters]
    columns = [Column("from", [origin for origin, _ in facts.draws], right=False)]
    for path in paths:
        cells = [_short(point[path]) if path in point else "" for _, point in facts.draws]
        columns.append(Column(path.rsplit(".", 1)[-1], cells))
    note = "Later draws depend on results." if facts.method.startswith("tpe") else ""
    return Table("First trials", tuple(columns), (note,) if note else ())


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
