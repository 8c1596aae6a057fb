"""YAML files and ``--set`` options to validated configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hms_ray.config.experiment import Experiment
from hms_ray.config.fields import is_whole
from hms_ray.config.former_names import (
    FORMER_SECTIONS,
    former_keys,
    in_new_form,
    with_new_names,
    with_new_values,
)
from hms_ray.config.inputs import in_recipe
from hms_ray.config.space import Parameter, Space
from hms_ray.config.validation import fault_lines, faults_error, validated
from hms_ray.config.values import (
    chosen_value,
    is_searched,
    parameter_values,
    replace_values,
    set_path,
)
from hms_ray.config.yaml_files import parse_yaml, read_mapping
from hms_ray.errors import ConfigError
from hms_ray.text import closest


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
        data = with_new_values(in_new_form(with_new_names(data)))
    for setting in settings:
        apply_setting(data, setting)
    where = f"{path} with --set {' --set '.join(settings)}" if settings else path
    return validate_space(data, where=where)


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


def apply_setting(data: dict[str, Any], setting: str) -> None:
    """Applies one ``a.b=value`` to the plain data of a space, in place."""
    path, equals, value = setting.partition("=")
    path = path.strip()
    if not equals or not path:
        raise ConfigError("--set must look like a.b=value", got=setting)
    if path.split(".")[0] not in Space.model_fields.keys() | FORMER_SECTIONS:
        path = f"experiment.{path}"
    set_path(data, path, parse_yaml(value, f"--set {setting}"))


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
        elif not is_searched(parameter, point[path]):
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
