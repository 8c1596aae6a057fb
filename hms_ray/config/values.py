"""Values by dotted path: set in an experiment, searched by a parameter."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from hms_ray.config.experiment import Experiment
from hms_ray.config.space import Parameter
from hms_ray.config.validation import validated
from hms_ray.errors import ConfigError

_INSIDE: Final = 0.3819660
"""Position within a range of a number to validate (golden section: not a round number)."""


def replace_values(
    experiment: Experiment, values: Mapping[str, Any], where: object = "values"
) -> Experiment:
    """A validated copy of an experiment with values set by dotted path.

    The order of the paths does not matter: a value is set before values inside it. A value
    inside one that is set to null is ignored (``training.augment.cutmix.probability`` with
    ``training.augment.cutmix: null``).

    Raises:
        ConfigError: with every fault.
    """
    data = experiment.model_dump(mode="json")
    switched_off = tuple(f"{path}." for path, value in values.items() if value is None)
    for path in sorted(values, key=lambda path: path.count(".")):
        if not path.startswith(switched_off):
            # A copy, since a value inside it may be set next.
            set_path(data, path, deepcopy(values[path]))
    return validated(Experiment, data, where)


def set_path(data: dict[str, Any], path: str, value: Any) -> None:
    """Sets one value in nested mappings and lists, in place; makes missing mappings."""
    *parents, last = path.split(".")
    here: Any = data
    walked: list[str] = []
    for name in parents:
        walked.append(name)
        here = _step(here, name, ".".join(walked))
    if isinstance(here, list):
        here[_index(here, last, path)] = value
    else:
        here[last] = value


def _step(here: Any, name: str, walked: str) -> Any:
    if isinstance(here, list):
        return here[_index(here, name, walked)]
    below = here.get(name)
    if below is None:
        below = here[name] = {}
    if not isinstance(below, (dict, list)):
        raise ConfigError(
            "a dotted path must lead through mappings and lists",
            got=f"{below!r} at {walked}",
        )
    return below


def _index(values: list[Any], name: str, walked: str) -> int:
    if not name.isdecimal() or int(name) >= len(values):
        raise ConfigError(
            f"a position in this list must be from 0 to {len(values) - 1}",
            got=name,
            where=walked,
            fix="Write the whole list in the file before you set one of its items.",
        )
    return int(name)


def probed(parameter: Parameter) -> list[Any]:
    """Its values or labels; of a range, its bounds and a number between them."""
    if parameter.values is not None:
        return list(parameter.values)
    low, high = parameter.bounds or (0, 0)
    values: list[Any] = [low, high]
    if isinstance(low, float):
        # Bounds may be whole although the numbers between them are not.
        values.append(low + (parameter.step or _INSIDE * (high - low)))
    return list(dict.fromkeys(values))


def parameter_values(parameter: Parameter) -> dict[str, Any]:
    """Text or label -> value, of what is ``probed``."""
    return {str(chosen): chosen_value(parameter, chosen) for chosen in probed(parameter)}


def chosen_value(parameter: Parameter, chosen: Any) -> Any:
    """The value of a label, or the value itself if values have no labels."""
    return parameter.values[chosen] if isinstance(parameter.values, dict) else chosen


def is_searched(parameter: Parameter, value: Any) -> bool:
    """Whether a parameter has this value or label, or a range holds it."""
    if parameter.values is not None:
        # As a list, since the value may be unhashable.
        return value in list(parameter.values)
    low, high = parameter.bounds or (0, 0)
    kinds = (int, float) if isinstance(low, float) else int
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        return False
    steps = (value - low) / parameter.step if parameter.step else 0
    return abs(steps - round(steps)) < 1e-9 * max(steps, 1)


def own_value(parameter: Parameter, experiment: Experiment, path: str) -> list[Any]:
    """The value or label of a parameter that an experiment has already; empty if none."""
    if parameter.values is not None:
        return [
            chosen
            for chosen in parameter.values
            if _equals(experiment, path, chosen_value(parameter, chosen))
        ][:1]
    here: Any = experiment.model_dump(mode="json")
    for name in path.split("."):
        if isinstance(here, list):
            here = dict(enumerate(here)).get(int(name))
        else:
            here = (here or {}).get(name)
    return [here] if is_searched(parameter, here) else []


def _equals(experiment: Experiment, path: str, value: Any) -> bool:
    try:
        return replace_values(experiment, {path: value}) == experiment
    except ConfigError:
        return False
