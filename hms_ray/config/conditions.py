"""Which parameters of a space are active at a point, and all points of a space.

A point maps dotted paths to values or labels. A parameter with conditions (``when``) is
active if every parameter that it names is active and has one of the values named; a point
has the active parameters only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hms_ray.config.space import Parameter, Space

Parameters = Mapping[str, Parameter]
Axes = Mapping[str, Sequence[Any]]
"""Dotted path -> its values or labels."""


def allowed_values(condition: Any) -> list[Any]:
    """The values that a condition names: one, or a list."""
    return condition if isinstance(condition, list) else [condition]


def parents_first(parameters: Parameters) -> list[str]:
    """The paths in the order of the file, but each after those that its conditions name.

    Raises:
        ValueError: if conditions form a circle, with its paths.
    """
    ordered: dict[str, None] = {}

    def visit(path: str, below: tuple[str, ...]) -> None:
        if path in below:
            raise ValueError(" -> ".join((*below[below.index(path) :], path)))
        for parent in parameters[path].when:
            if parent in parameters:
                visit(parent, (*below, path))
        ordered[path] = None

    for path in parameters:
        visit(path, ())
    return list(ordered)


def is_active(parameter: Parameter, point: Mapping[str, Any]) -> bool:
    """Whether a parameter is active, given the active ones that its conditions name."""
    return all(
        path in point and point[path] in allowed_values(condition)
        for path, condition in parameter.when.items()
    )


def active_paths(parameters: Parameters, point: Mapping[str, Any]) -> list[str]:
    """The paths that a point must have, given the values that it has; parents first."""
    active: dict[str, Any] = {}
    for path in parents_first(parameters):
        if is_active(parameters[path], active):
            # A missing value meets no condition; point[path] of an inactive one is not read.
            active[path] = point.get(path, _Missing)
    return list(active)


class _Missing:
    """No value."""


def ancestors(parameters: Parameters, path: str) -> dict[str, list[Any]]:
    """Paths that conditions of a path name, and theirs -> the values that make it active."""
    found: dict[str, list[Any]] = {}
    for parent, condition in parameters[path].when.items():
        for above, allowed in {
            **ancestors(parameters, parent),
            parent: allowed_values(condition),
        }.items():
            known = found.get(above, allowed)
            found[above] = [value for value in allowed if value in known]
    return found


def axis(parameter: Parameter) -> Sequence[Any] | None:
    """The values or labels of a parameter; None for a range of real numbers without step."""
    if parameter.bounds is None:
        return list(parameter.values or ())
    low, high = parameter.bounds
    if isinstance(low, int) and isinstance(high, int):
        return range(low, high + 1, int(parameter.step or 1))
    if parameter.step is None:
        return None
    n_steps = round((high - low) / parameter.step)
    # Without the last digits, in which 3 x 0.1 differs from 0.3.
    return [float(f"{low + number * parameter.step:.12g}") for number in range(n_steps + 1)]


def n_points(space: Space) -> int | None:
    """Number of points of a space; None if it has a range of real numbers without step."""
    parameters = space.parameters
    axes = {path: axis(parameter) for path, parameter in parameters.items()}
    if None in axes.values():
        return None
    sizes = {path: len(values) for path, values in axes.items() if values is not None}
    # Only parameters that conditions name are listed; the others multiply.
    named = {path for parameter in parameters.values() for path in parameter.when}
    deciding = {path: values for path, values in axes.items() if values and path in named}
    return sum(
        math.prod(
            sizes[path]
            for path, parameter in parameters.items()
            if path not in named and is_active(parameter, point)
        )
        for point in combinations({path: parameters[path] for path in deciding}, deciding)
    )


def points(space: Space) -> Iterator[dict[str, Any]]:
    """Every point of a space without real-valued ranges, in a fixed order."""
    axes = {path: axis(parameter) or () for path, parameter in space.parameters.items()}
    yield from combinations(space.parameters, axes)


def combinations(parameters: Parameters, axes: Axes) -> Iterator[dict[str, Any]]:
    """Every point with these values of the active parameters; the last path varies fastest."""
    yield from _from(parents_first(parameters), {}, parameters, axes)


def _from(
    paths: Sequence[str], point: dict[str, Any], parameters: Parameters, axes: Axes
) -> Iterator[dict[str, Any]]:
    if not paths:
        yield dict(point)
        return
    first, *rest = paths
    if not is_active(parameters[first], point):
        yield from _from(rest, point, parameters, axes)
        return
    for value in axes[first]:
        yield from _from(rest, {**point, first: value}, parameters, axes)
