"""Checks of a space against the configuration that it searches, before anything starts."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any, Final

from hms_ray.config.conditions import (
    active_paths,
    allowed_values,
    ancestors,
    axis,
    is_active,
    parents_first,
)
from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.fields import annotations_at, keys_at
from hms_ray.config.inputs import in_recipe
from hms_ray.config.space import BLEND_GAIN, Parameter, Space
from hms_ray.config.validation import fault_lines
from hms_ray.config.values import (
    chosen_value,
    is_searched,
    own_value,
    probed,
    replace_values,
)
from hms_ray.errors import ConfigError
from hms_ray.text import closest

MAX_CONTEXTS: Final = 256
"""Largest number of other points at which a parameter is tried for an effect."""

Fault = tuple[str, str]
"""Dotted place in the file, and what is wrong there."""


def parameter_faults(space: Space) -> list[Fault]:
    """Faults of paths, values and conditions; one entry per fault."""
    faults = _condition_faults(space)
    if faults:
        # Values are checked where conditions hold.
        return faults
    for path, parameter in space.parameters.items():
        found = _path_faults(path, parameter) or _value_faults(space, path)
        if space.method == "grid" and axis(parameter) is None:
            found.append(": a grid needs values, integers, or a step")
        place = f"parameters.{path}"
        faults += [(place, f"{place}{line}") for line in found]
    return faults


def effect_faults(space: Space) -> list[Fault]:
    """Parameters that change no training, whatever the others are, and a rule that cannot prune."""
    by_gain = space.metric == BLEND_GAIN and "prune" in space.model_fields_set
    if by_gain and space.prune.rule != "none":
        text = (
            "prune: must be none with metric: blend_gain, which needs all folds of each trial, "
            f"got {space.prune.rule}; remove prune, or write prune: none"
        )
        return [("prune", text)]
    return [
        (
            f"parameters.{path}",
            f"parameters.{path}: has no effect; no value of it changes what is trained",
        )
        for path in space.parameters
        if not has_effect(space, path)
    ]


def _condition_faults(space: Space) -> list[Fault]:
    faults = []
    for path, parameter in space.parameters.items():
        for parent, condition in parameter.when.items():
            place = f"parameters.{path}.when.{parent}"
            if parent not in space.parameters:
                near = closest(parent, [name for name in space.parameters if name != path])
                faults.append((place, f"{place}: {parent} is not searched{near}"))
                continue
            faults += [
                (place, f"{place}: {parent} cannot be {value!r}")
                for value in allowed_values(condition)
                if not is_searched(space.parameters[parent], value)
            ]
    if faults:
        return faults
    try:
        parents_first(space.parameters)
    except ValueError as circle:
        path = str(circle).split(" -> ")[0]
        return [(f"parameters.{path}.when", f"conditions must not form a circle, got {circle}")]
    for path in space.parameters:
        never = [name for name, allowed in ancestors(space.parameters, path).items() if not allowed]
        if never:
            place = f"parameters.{path}.when"
            faults.append((place, f"{place}: no value of {never[0]} meets all conditions"))
    return faults


def _path_faults(path: str, parameter: Parameter) -> list[str]:
    """Faults of a path that no value can mend."""
    *parents, last = path.split(".")
    if path.split(".")[0] == "data":
        return [": all trials share rows and folds; use one study per value"]
    if not annotations_at(Experiment, path):
        while parents and not annotations_at(Experiment, parents):
            *parents, last = parents
        known = keys_at(Experiment, parents)
        return [f" leads to no field{closest(last, known)}"]
    if in_recipe(path) and parameter.values is None:
        # Every value needs a pack of its own.
        return [": a value of a recipe must be searched by values"]
    return []


def _value_faults(space: Space, path: str) -> list[str]:
    """Values that fit nowhere in the space where the parameter is active."""
    parameter = space.parameters[path]
    faults: list[str] = []
    for chosen in probed(parameter):
        lines: list[str] = []
        for context in _active_contexts(space, path):
            try:
                _at(space, {**context, path: chosen})
            except ConfigError as error:
                lines = lines or fault_lines(error)
            else:
                break
        else:
            faults += [f" with {chosen}: {line}" for line in lines]
    return list(dict.fromkeys(faults))


def _at(space: Space, point: Mapping[str, Any]) -> Experiment:
    values = {path: chosen_value(space.parameters[path], value) for path, value in point.items()}
    return replace_values(space.experiment, values)


def _active_contexts(space: Space, path: str) -> Iterator[dict[str, Any]]:
    """Values of the parameters that a path's conditions name, with which it is active."""
    above = ancestors(space.parameters, path)
    for values in itertools.islice(itertools.product(*above.values()), MAX_CONTEXTS):
        context = dict(zip(above, values, strict=True))
        if all(is_active(space.parameters[name], context) for name in (*above, path)):
            yield context


def has_effect(space: Space, path: str) -> bool:
    """Whether two values of a parameter differ in what is trained, somewhere in the space.

    Tries the experiment's own values of the other parameters first, then their combinations:
    all of them if they are few, else a fixed random sample.
    """
    probes = probed(space.parameters[path])
    if len(probes) == 1:
        return True
    for context in itertools.chain(_active_contexts(space, path), _contexts(space, path)):
        seen: list[Any] = []
        for chosen in probes:
            try:
                experiment = _at(space, {**context, path: chosen})
            except ConfigError:
                continue
            trained = (canonical(experiment), experiment.model.weights_files)
            if seen and trained not in seen:
                return True
            seen.append(trained)
    return False


def _contexts(space: Space, path: str) -> Iterator[dict[str, Any]]:
    """Combinations of the other parameters at which a parameter is active."""
    above = ancestors(space.parameters, path)
    axes = {
        name: above.get(name, probed(parameter))
        for name, parameter in space.parameters.items()
        if name != path and path not in ancestors(space.parameters, name)
    }
    if math.prod(map(len, axes.values())) <= MAX_CONTEXTS:
        drawn: Iterator[tuple[Any, ...]] = itertools.product(*axes.values())
    else:
        generator = random.Random(0)  # noqa: S311
        drawn = (
            tuple(generator.choice(values) for values in axes.values()) for _ in range(MAX_CONTEXTS)
        )
    for values in drawn:
        context = dict(zip(axes, values, strict=True))
        active = active_paths({name: space.parameters[name] for name in axes}, context)
        point = {name: context[name] for name in active}
        if is_active(space.parameters[path], point):
            yield point


def completed_start(
    space: Space, point: Mapping[str, Any], place: str
) -> tuple[dict[str, Any], list[Fault]]:
    """A start point with the experiment's own values where it has none, and its faults."""
    faults = [
        f"{path} is not searched{closest(path, space.parameters)}"
        for path in point
        if path not in space.parameters
    ]
    full: dict[str, Any] = {}
    for path in parents_first(space.parameters):
        parameter = space.parameters[path]
        if not is_active(parameter, full):
            if path in point:
                faults.append(f"{path} is inactive here; its conditions are {parameter.when}")
        elif path in point:
            full[path] = point[path]
            if not is_searched(parameter, point[path]):
                faults.append(f"{path} cannot be {point[path]!r}")
        else:
            own = own_value(parameter, space.experiment, path)
            if own:
                full[path] = own[0]
            else:
                faults.append(
                    f"a value for {path} is missing, and the experiment's own is not searched"
                )
    if not faults:
        try:
            _at(space, full)
        except ConfigError as error:
            faults = fault_lines(error)
    return full, [(place, f"{place}: {line}") for line in faults]
