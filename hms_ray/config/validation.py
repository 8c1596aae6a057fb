"""Validation of configurations: all faults of a file at once, one per line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from hms_ray.errors import ConfigError
from hms_ray.text import closest

Model = TypeVar("Model", bound=BaseModel)

RENAMED: Final = {"pool": "downsample", "cutmix": "augment.cutmix"}
"""Former name of a key -> its name now, below the same parent."""


def validated(model: type[Model], data: Mapping[str, Any], where: object) -> Model:
    """A model from plain data.

    Args:
        model: what to make.
        data: its fields.
        where: file or place, for messages.

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
            _fault_line(model, fault)
            for fault in errors
            if not (fault["type"] == "too_short" and tuple(fault["loc"]) in inner)
        ]
        raise faults_error(faults, where) from None


def with_new_names(data: Any) -> Any:
    """Plain data of an earlier version with its keys and dotted paths renamed.

    Only for files that hms_ray wrote itself: in a user's file a former name is an error.
    """
    if isinstance(data, Mapping):
        # Labels of choices are the user's own.
        return {
            _new_path(key): value if key == "choices" else with_new_names(value)
            for key, value in data.items()
        }
    return [with_new_names(item) for item in data] if isinstance(data, list) else data


def _new_path(path: Any) -> Any:
    if not isinstance(path, str):
        return path
    new = ((part, RENAMED.get(part, part)) for part in path.split("."))
    # Stored files have no key that was moved below another one.
    return ".".join(former if "." in name else name for former, name in new)


def _fault_line(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    """One line for an error of pydantic: place, rule, value received."""
    path = [str(part) for part in error["loc"]]
    place = ".".join(path)
    if error["type"] == "extra_forbidden":
        *parents, new = RENAMED.get(path[-1], "").split(".")
        above = error["loc"][:-1]
        if new in _keys_at(model, (*above, *parents)):
            return f"{place} is now named {'.'.join([*path[:-1], *parents, new])}"
        return f"unknown key {place}{closest(path[-1], _keys_at(model, above))}"
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    received = error["input"]
    if isinstance(received, (dict, BaseModel)):
        return f"{place}: {message}" if place else message
    return f"{place}: {message}, got {received!r}"


def _keys_at(model: type[BaseModel], path: Sequence[Any]) -> list[str]:
    """The keys that are known at a path."""
    models: list[Any] = [model]
    for part in path:
        below: list[Any] = []
        for here in models:
            field = here.model_fields.get(part) if isinstance(part, str) else None
            below += _models(field.annotation) if field else []
        # A position in a list, or a branch of a union, leads to the same models.
        models = below or models
    return [field.alias or name for here in models for name, field in here.model_fields.items()]


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]


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
