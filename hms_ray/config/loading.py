"""YAML files and ``--set`` options to validated configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hms_ray.config.base_files import BASE, read_with_bases
from hms_ray.config.conditions import n_points
from hms_ray.config.experiment import Experiment
from hms_ray.config.fields import is_whole
from hms_ray.config.former_names import (
    FORMER_SECTIONS,
    former_keys,
    in_new_form,
    with_new_names,
    with_new_values,
)
from hms_ray.config.space import Parameter, Space
from hms_ray.config.space_checks import Fault, completed_start, effect_faults, parameter_faults
from hms_ray.config.validation import fault_lines, faults_error, validated
from hms_ray.config.values import set_path
from hms_ray.config.yaml_files import Marks, parse_yaml, with_mark
from hms_ray.errors import ConfigError


def load_space(path: str | Path, settings: Sequence[str] = (), *, stored: bool = False) -> Space:
    """Reads a search space or experiment file and applies ``--set`` options to it.

    Args:
        path: YAML file with any of the keys of ``Space``; its ``base`` is read too.
        settings: texts ``a.b=value``, with the value as YAML. A path starts at a key of
            the file or inside its experiment (``training.seed=1`` is
            ``experiment.training.seed=1``).
        stored: whether the file was written by a study; former names are then read too, and
            parameters may be without effect.

    Raises:
        ConfigError: with every fault of the file.
    """
    marks: Marks = {}
    data = read_with_bases(path, marks)
    if stored:
        data = with_new_values(in_new_form(with_new_names(data)))
    for setting in settings:
        changed = apply_setting(data, setting)
        for place in [place for place in marks if f"{place}.".startswith(f"{changed}.")]:
            del marks[place]
        marks[changed] = "from --set"
    where = f"{path} with --set {' --set '.join(settings)}" if settings else path
    return validate_space(data, where, marks=marks, stored=stored)


def validate_space(
    data: Mapping[str, Any],
    where: object,
    *,
    marks: Marks | None = None,
    stored: bool = False,
) -> Space:
    """A space from plain data, checked against the configuration that it searches.

    Ranges get the type of their fields, start points the values that they omit, and a grid
    the number of its points as budget.

    Args:
        data: fields of ``Space``.
        where: file or place, for messages.
        marks: lines of the fields, for messages.
        stored: whether a study stored it: parameters may then be without effect.

    Raises:
        ConfigError: with every fault.
    """
    marks = marks or {}
    faults = [(path, f"{path} is now named {new}") for path, new in former_keys(data).items()]
    if data.get(BASE) is not None:
        faults.append((BASE, "base can be set in a file only"))
    former = [with_mark(text, place, marks) for place, text in faults]
    try:
        # In the new form, so that all other faults are found too.
        space = validated(Space, in_new_form(data), where, marks)
    except ConfigError as error:
        raise faults_error([*former, *fault_lines(error)], where) if former else error from None
    space = _with_number_types(space)
    found = parameter_faults(space)
    if not found:
        space, found = _with_full_start(space)
    if not found and not stored:
        found = effect_faults(space)
    if former or found:
        lines = [with_mark(text, place, marks) for place, text in found]
        raise faults_error([*former, *lines], where)
    if space.method == "grid" and "trials" not in space.budget.model_fields_set:
        budget = space.budget.model_copy(update={"trials": n_points(space)})
        space = space.model_copy(update={"budget": budget})
    return space


def _with_full_start(space: Space) -> tuple[Space, list[Fault]]:
    """The space with the values that its start points omit, and the faults of these points."""
    done = [
        completed_start(space, point, f"start.{number}") for number, point in enumerate(space.start)
    ]
    start = [point for point, _ in done]
    return space.model_copy(update={"start": start}), [fault for _, some in done for fault in some]


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


def apply_setting(data: dict[str, Any], setting: str) -> str:
    """Applies one ``a.b=value`` to the plain data of a space, in place; returns its path."""
    path, value = parsed_setting(setting)
    set_path(data, path, value)
    return path


def parsed_setting(setting: str) -> tuple[str, Any]:
    """Dotted path into a space, and value, of a text ``a.b=value``.

    Raises:
        ConfigError: if it is none, or the value is no YAML.
    """
    path, equals, value = setting.partition("=")
    path = path.strip()
    if not equals or not path:
        raise ConfigError("--set must look like a.b=value", got=setting)
    if path.split(".")[0] not in Space.model_fields.keys() | FORMER_SECTIONS:
        path = f"experiment.{path}"
    return path, parse_yaml(value, f"--set {setting}")
