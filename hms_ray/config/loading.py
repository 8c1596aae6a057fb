"""YAML files and ``--set`` options to validated configurations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import yaml

from hms_ray.config.experiment import Experiment
from hms_ray.config.fields import is_whole
from hms_ray.config.former_names import FORMER_SECTIONS, former_keys, in_new_form, with_new_names
from hms_ray.config.inputs import in_recipe
from hms_ray.config.space import Parameter, Space
from hms_ray.config.validation import fault_lines, faults_error, validated
from hms_ray.errors import ConfigError
from hms_ray.text import closest

_INSIDE: Final = 0.3819660
"""Position within a range of a number to validate (golden section: not a round number)."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 in which 1e-3 is a number and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool)):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be text or a number", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is repeated", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: object) -> Any:
    """Plain data from YAML text.

    Raises:
        ConfigError: if the text is not valid YAML, with line and column.
    """
    try:
        # _Loader is a SafeLoader; ruff cannot see that.
        return yaml.load(text, Loader=_Loader)  # noqa: S506
    except (yaml.YAMLError, ValueError) as error:
        # PyYAML raises ValueError for an impossible date.
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError("a configuration must be valid YAML", got=problem, where=place) from None


def load_space(path: str | Path, settings: Sequence[str] = (), *, stored: bool = False) -> Space:
    """Reads a search space or experiment file and applies ``--set`` options to it.

    Args:
        path: YAML file with any of the keys of ``Space``.
        settings: texts ``a.b=value``, with the value as YAML. A path starts at a key of
            the file or inside its experiment (``training.seed=1`` is
            ``experiment.training.seed=1``).
        stored: whether the file was written by a study; former names are then read too.

    Raises:
        ConfigError: with every fault of the file.
    """
    data = read_mapping(path)
    if stored:
        data = in_new_form(with_new_names(data))
    for setting in settings:
        apply_setting(data, setting)
    where = f"{path} with --set {' --set '.join(settings)}" if settings else path
    return validate_space(data, where=where)


def read_mapping(path: str | Path) -> dict[Any, Any]:
    """The mapping in a YAML file as plain data; empty for an empty file.

    Raises:
        ConfigError: if the file cannot be read, is not YAML or is not a mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError("a configuration file must be readable", got=reason, where=path) from None
    data = parse_yaml(text, path)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(
            "a configuration file must be a mapping", got=type(data).__name__, where=path
        )
    return data


def validate_space(data: Mapping[str, Any], where: object) -> Space:
    """A space from plain data, with its search paths and start points checked.

    Args:
        data: fields of ``Space``.
        where: file or place, for messages.

    Raises:
        ConfigError: with every fault.
    """
    former = [f"{path} is now named {new}" for path, new in former_keys(data).items()]
    try:
        # In the new form, so that all other faults are found too.
        space = validated(Space, in_new_form(data), where)
    except ConfigError as error:
        raise faults_error([*former, *fault_lines(error)], where) if former else error from None
    space = _with_number_types(space)
    faults = [*former, *(line for path in space.parameters for line in _search_faults(space, path))]
    for number, point in enumerate(space.start):
        faults += _start_faults(space, point, f"start.{number}")
    if faults:
        raise faults_error(faults, where)
    return space


def _with_number_types(space: Space) -> Space:
    """The space with real-valued bounds where a range sets a field of real numbers."""
    real = {
        path: parameter.model_copy(
            update={name: float(value) for name, value in _numbers(parameter).items()}
        )
        for path, parameter in space.parameters.items()
        if parameter.values is None and not is_whole(Experiment, path)
    }
    return space.model_copy(update={"parameters": {**space.parameters, **real}})


def _numbers(parameter: Parameter) -> dict[str, float]:
    given = {name: getattr(parameter, name) for name in ("min", "max", "step")}
    return {name: value for name, value in given.items() if value is not None}


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


def apply_setting(data: dict[str, Any], setting: str) -> None:
    """Applies one ``a.b=value`` to the plain data of a space, in place."""
    path, equals, value = setting.partition("=")
    path = path.strip()
    if not equals or not path:
        raise ConfigError("--set must look like a.b=value", got=setting)
    if path.split(".")[0] not in Space.model_fields.keys() | FORMER_SECTIONS:
        path = f"experiment.{path}"
    set_path(data, path, parse_yaml(value, f"--set {setting}"))


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


def parameter_values(parameter: Parameter) -> dict[str, Any]:
    """Label -> value; of a range, its bounds and a number between them."""
    if isinstance(parameter.values, dict):
        return dict(parameter.values)
    if parameter.values is not None:
        return {str(value): value for value in parameter.values}
    low, high = parameter.bounds or (0, 0)
    values: list[Any] = [low, high]
    if isinstance(low, float):
        # Bounds may be whole although the numbers between them are not.
        values.append(low + (parameter.step or _INSIDE * (high - low)))
    return {str(value): value for value in values}


def _search_faults(space: Space, path: str) -> list[str]:
    """A searched path must lead to a value, and every value must fit there."""
    if in_recipe(path) and space.parameters[path].values is None:
        # Every value needs a pack of its own.
        return [f"parameters.{path}: a value of a recipe must be searched by values"]
    if path.split(".")[0] == "data":
        return [f"parameters.{path}: all trials share rows and folds; use one study per value"]
    faults = []
    for label, value in parameter_values(space.parameters[path]).items():
        try:
            replace_values(space.experiment, {path: value})
        except ConfigError as error:
            faults += [f"parameters.{path} with {label}: {line}" for line in fault_lines(error)]
    return list(dict.fromkeys(faults))


def _start_faults(space: Space, point: Mapping[str, Any], where: str) -> list[str]:
    """A start point must have a valid value for every searched path."""
    faults = [
        f"{where}: {path} is not searched{closest(path, space.parameters)}"
        for path in point
        if path not in space.parameters
    ]
    for path, parameter in space.parameters.items():
        if path not in point:
            faults.append(f"{where}: a value for {path} is missing")
        elif not _is_searched(parameter, point[path]):
            faults.append(f"{where}: {path} cannot be {point[path]!r}")
    if faults:
        return faults
    try:
        chosen = {
            path: chosen_value(space.parameters[path], value) for path, value in point.items()
        }
        replace_values(space.experiment, chosen)
    except ConfigError as error:
        faults = [f"{where}: {line}" for line in fault_lines(error)]
    return faults


def chosen_value(parameter: Parameter, chosen: Any) -> Any:
    """The value of a label, or the value itself if values have no labels."""
    return parameter.values[chosen] if isinstance(parameter.values, dict) else chosen


def _is_searched(parameter: Parameter, value: Any) -> bool:
    if parameter.values is not None:
        # As a list, since the value may be unhashable.
        return value in list(parameter.values)
    low, high = parameter.bounds or (0, 0)
    kinds = (int, float) if isinstance(low, float) else int
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        return False
    steps = (value - low) / parameter.step if parameter.step else 0
    return abs(steps - round(steps)) < 1e-9 * max(steps, 1)
