"""YAML files and ``--set`` to validated configurations; all errors at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import yaml

from hms_ray.config.experiment import Experiment
from hms_ray.config.inputs import in_recipe
from hms_ray.config.space import Parameter, Space
from hms_ray.config.validation import listed, one_a_line, validated
from hms_ray.errors import ConfigError
from hms_ray.text import closest

_INSIDE: Final = 0.3819660
"""Where within a range of numbers a value is tried (golden section: no round share)."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with two traps removed: 1e-3 is a number, a repeated key an error."""

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
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
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
        ConfigError: with line and column, where the text is not YAML.
    """
    try:
        # _Loader is a SafeLoader; ruff cannot see that.
        return yaml.load(text, Loader=_Loader)  # noqa: S506
    except (yaml.YAMLError, ValueError) as error:
        # PyYAML makes dates of what looks like one: of an impossible one, a ValueError.
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError("a configuration must be valid YAML", got=problem, where=place) from None


def load_space(path: str | Path, settings: Sequence[str] = ()) -> Space:
    """Reads a search space or experiment file and applies ``--set`` to it.

    Args:
        path: YAML file with any of the keys of ``Space``.
        settings: texts ``a.b=value``; values are YAML. A path starts at one of
            the file's own keys or inside its experiment
            (``training.seed=1`` is ``experiment.training.seed=1``).

    Raises:
        ConfigError: naming every fault of the file at once.
    """
    data = read_mapping(path)
    for setting in settings:
        apply_setting(data, setting)
    return validate_space(data, where=path)


def read_mapping(path: str | Path) -> dict[Any, Any]:
    """A YAML file's mapping as plain data; an empty file is an empty one.

    Raises:
        ConfigError: where the file cannot be read, or is no YAML or no mapping.
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
    """A checked space from plain data, its search paths and start points included."""
    space = validated(Space, data, where)
    faults = [fault for path in space.search for fault in _search_faults(space, path)]
    for number, point in enumerate(space.start):
        faults += _start_faults(space, point, f"start.{number}")
    if faults:
        raise listed(faults, where)
    return space


def replace_values(
    experiment: Experiment, values: Mapping[str, Any], where: object = "values"
) -> Experiment:
    """A copy of an experiment with values set by dotted path, checked again.

    The order of the paths does not matter: a value is set before values within it. A
    value within one that is set to nothing (``training.cutmix.probability`` beside
    ``training.cutmix: null``) has no place and is left out.
    """
    data = experiment.model_dump(mode="json")
    absent = tuple(f"{path}." for path, value in values.items() if value is None)
    for path in sorted(values, key=lambda path: path.count(".")):
        if not path.startswith(absent):
            # A copy, since a value within it may be set next.
            set_path(data, path, deepcopy(values[path]))
    return validated(Experiment, data, where)


def apply_setting(data: dict[str, Any], setting: str) -> None:
    """Applies one ``a.b=value`` to plain space data, in place."""
    path, equals, value = setting.partition("=")
    path = path.strip()
    if not equals or not path:
        raise ConfigError("--set must look like a.b=value", got=setting)
    if path.split(".")[0] not in Space.model_fields:
        path = f"experiment.{path}"
    set_path(data, path, parse_yaml(value, f"--set {setting}"))


def set_path(data: dict[str, Any], path: str, value: Any) -> None:
    """Sets one value in nested mappings and lists; missing mappings are made."""
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
            f"a list is entered by a position from 0 to {len(values) - 1}",
            got=name,
            where=walked,
            fix="Where a file leaves a list out, write it in the file before setting its items.",
        )
    return int(name)


def parameter_values(parameter: Parameter) -> dict[str, Any]:
    """The values a parameter is checked with: label -> value; bounds where it is a range."""
    if isinstance(parameter.choices, dict):
        return dict(parameter.choices)
    if parameter.choices is not None:
        return {str(value): value for value in parameter.choices}
    low, high = parameter.int_ or parameter.float_ or (0, 0)
    values: list[Any] = [low, high]
    if parameter.float_ is not None:
        # Bounds may be whole where the numbers between them are not.
        values.append(low + _INSIDE * (high - low))
    return {str(value): value for value in values}


def _search_faults(space: Space, path: str) -> list[str]:
    """A searched path must lead to a value, and every value must fit there."""
    if in_recipe(path) and space.search[path].choices is None:
        # Each value is a pack of its own, and a range has too many.
        return [f"search.{path}: what decides a pack's values is searched by choices"]
    if path.split(".")[0] == "data":
        return [f"search.{path}: rows and folds are made once for all trials; use a study for each"]
    faults = []
    for label, value in parameter_values(space.search[path]).items():
        try:
            replace_values(space.experiment, {path: value})
        except ConfigError as error:
            faults += [f"search.{path} with {label}: {line}" for line in one_a_line(error)]
    return list(dict.fromkeys(faults))


def _start_faults(space: Space, point: Mapping[str, Any], where: str) -> list[str]:
    """A start point gives a value for every searched path, within its bounds."""
    faults = [
        f"{where}: {path} is not searched{closest(path, space.search)}"
        for path in point
        if path not in space.search
    ]
    for path, parameter in space.search.items():
        if path not in point:
            faults.append(f"{where}: a value for {path} is missing")
        elif not _within(parameter, point[path]):
            faults.append(f"{where}: {path} cannot be {point[path]!r}")
    if faults:
        return faults
    try:
        chosen = {path: chosen_value(space.search[path], value) for path, value in point.items()}
        replace_values(space.experiment, chosen)
    except ConfigError as error:
        faults = [f"{where}: {line}" for line in one_a_line(error)]
    return faults


def chosen_value(parameter: Parameter, chosen: Any) -> Any:
    """The value that a choice stands for: a label's, or the choice itself."""
    return parameter.choices[chosen] if isinstance(parameter.choices, dict) else chosen


def _within(parameter: Parameter, value: Any) -> bool:
    if parameter.choices is not None:
        # As a list, since a value that cannot be hashed is compared all the same.
        return value in list(parameter.choices)
    low, high = parameter.int_ or parameter.float_ or (0, 0)
    number = isinstance(value, int) or (parameter.float_ and isinstance(value, float))
    return bool(number) and not isinstance(value, bool) and low <= value <= high
