"""Faults of a configuration in words: every one of a file, each on a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from hms_ray.errors import ConfigError
from hms_ray.text import closest

Model = TypeVar("Model", bound=BaseModel)

RENAMED: Final = {"pool": "downsample"}
"""Former name of a key -> its name now."""


def validated(model: type[Model], data: Mapping[str, Any], where: object) -> Model:
    """A checked model from plain data.

    Raises:
        ConfigError: naming every fault at once.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        errors: list[dict[str, Any]] = [dict(fault) for fault in error.errors()]
        # A list whose items are faulty is also reported as too short: once will do.
        inner = {tuple(fault["loc"][:-1]) for fault in errors} | {
            tuple(fault["loc"][:-2]) for fault in errors
        }
        faults = [
            _fault(model, fault)
            for fault in errors
            if not (fault["type"] == "too_short" and tuple(fault["loc"]) in inner)
        ]
        raise listed(faults, where) from None


def _fault(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    """One line for one of pydantic's errors: where, rule, value received."""
    path = [str(part) for part in error["loc"]]
    place = ".".join(path)
    if error["type"] == "extra_forbidden":
        keys = _keys_at(model, error["loc"][:-1])
        if RENAMED.get(path[-1]) in keys:
            return f"{place} is now named {'.'.join([*path[:-1], RENAMED[path[-1]]])}"
        return f"unknown key {place}{closest(path[-1], keys)}"
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    received = error["input"]
    if isinstance(received, (dict, BaseModel)):
        return f"{place}: {message}" if place else message
    return f"{place}: {message}, got {received!r}"


def _keys_at(model: type[BaseModel], path: Sequence[Any]) -> list[str]:
    """The keys that pydantic would take at a path."""
    kinds: list[Any] = [model]
    for part in path:
        below: list[Any] = []
        for kind in kinds:
            field = kind.model_fields.get(part) if isinstance(part, str) else None
            below += _models(field.annotation) if field else []
        # A position in a list, or a union's branch, leads to the same models.
        kinds = below or kinds
    return [field.alias or name for kind in kinds for name, field in kind.model_fields.items()]


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]


def listed(faults: Sequence[str], where: object) -> ConfigError:
    """One error for all faults of a file, each on a line of its own."""
    if len(faults) == 1:
        return ConfigError(faults[0], where=where)
    lines = "".join(f"\n  {fault}" for fault in faults)
    return ConfigError(f"{where} has {len(faults)} faults:{lines}")


def one_a_line(error: ConfigError) -> list[str]:
    """The faults of an error that ``listed`` made, or the rule of any other."""
    head, _, rest = error.rule.partition("\n")
    return [line.strip() for line in rest.splitlines() if line.strip()] if rest else [head]
