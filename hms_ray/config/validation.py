"""Validation of configurations: all faults of a file at once, one per line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hms_ray.config.fields import keys_at
from hms_ray.config.former_names import RENAMED
from hms_ray.config.yaml_files import Marks, with_mark
from hms_ray.errors import ConfigError
from hms_ray.text import closest

Model = TypeVar("Model", bound=BaseModel)


def validated(
    model: type[Model], data: Mapping[str, Any], where: object, marks: Marks | None = None
) -> Model:
    """A model from plain data.

    Args:
        model: what to make.
        data: its fields.
        where: file or place, for messages.
        marks: lines of the fields, for messages.

    Raises:
        ConfigError: with every fault, unknown keys with the nearest known one.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        errors: list[dict[str, Any]] = [dict(fault) for fault in error.errors()]
        # Pydantic also reports a list with faulty items as too short.
        inner = {tuple(fault["loc"][:-1]) for fault in errors} | {
            tuple(fault["loc"][:-2]) for fault in errors
        }
        faults = [
            with_mark(_fault_line(model, fault), ".".join(map(str, fault["loc"])), marks or {})
            for fault in errors
            if not (fault["type"] == "too_short" and tuple(fault["loc"]) in inner)
        ]
        raise faults_error(faults, where) from None


def _fault_line(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    """One line for an error of pydantic: place, rule, value received."""
    path = [str(part) for part in error["loc"]]
    place = ".".join(path)
    if error["type"] == "extra_forbidden":
        *parents, new = RENAMED.get(path[-1], "").split(".")
        above = error["loc"][:-1]
        if new in keys_at(model, (*above, *parents)):
            return f"{place} is now named {'.'.join([*path[:-1], *parents, new])}"
        return f"unknown key {place}{closest(path[-1], keys_at(model, above))}"
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    received = error["input"]
    if isinstance(received, (dict, BaseModel)):
        return f"{place}: {message}" if place else message
    return f"{place}: {message}, got {received!r}"


def faults_error(faults: Sequence[str], where: object) -> ConfigError:
    """One error for all faults of a file, one per line."""
    if len(faults) == 1:
        return ConfigError(faults[0], where=where)
    lines = "".join(f"\n  {fault}" for fault in faults)
    return ConfigError(f"{where} has {len(faults)} faults:{lines}")


def fault_lines(error: ConfigError) -> list[str]:
    """The faults of an error of ``faults_error``, or the rule of another error."""
    head, _, rest = error.rule.partition("\n")
    return [line.strip() for line in rest.splitlines() if line.strip()] if rest else [head]
