"""Fields of a fitted method's JSON, checked as they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import Array


def array_field(data: Mapping[str, Any], name: str, *shape: int | None) -> Array:
    """An array of finite numbers, float64; None in the shape matches any size.

    Raises:
        PredictionError: another shape, or a number that is not finite.
        KeyError: the field is missing.
        TypeError: it is not made of numbers; ``ValueError`` likewise.
    """
    array = np.array(data[name], dtype=np.float64)
    sizes = zip(array.shape, shape, strict=False)
    fits = array.ndim == len(shape) and all(want in (None, size) for size, want in sizes)
    if not fits or not np.isfinite(array).all():
        expected = ", ".join("models" if size is None else str(size) for size in shape)
        raise PredictionError(
            f"{name} of a fitted method must be finite numbers of shape ({expected})",
            got=str(array.shape) if not fits else "a number that is not finite",
        )
    return array


def number_field(
    data: Mapping[str, Any], name: str, above: float = -math.inf, below: float = math.inf
) -> float:
    """A finite number, strictly between two bounds.

    Raises:
        PredictionError: not a finite number, or out of bounds.
        KeyError: the field is missing.
    """
    value = data[name]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not (math.isfinite(value) and above < value < below):
        bounds = [f"above {above:g}"] if above > -math.inf else []
        bounds += [f"below {below:g}"] if below < math.inf else []
        raise PredictionError(
            " and ".join([f"{name} of a fitted method must be a finite number", *bounds]),
            got=value,
        )
    return float(value)


def weights_field(data: Mapping[str, Any]) -> Array:
    """The field ``weights``: one number of at least 0 per model; see ``array_field``.

    Raises:
        PredictionError: a negative weight, or no weights.
    """
    weights = array_field(data, "weights", None)
    if not weights.size:
        raise PredictionError("a fitted method must have weights", got="none")
    if (weights < 0).any():
        raise PredictionError(
            "weights of a fitted method must be at least 0", got=f"{np.min(weights):g}"
        )
    return weights


def facts_field(data: Mapping[str, Any]) -> dict[str, float]:
    """The field ``facts``: numbers of the fit by name.

    Raises:
        PredictionError: not a mapping, or a value is not a finite number.
        KeyError: the field is missing.
    """
    facts = mapping(data["facts"], "facts")
    for name in facts:
        number_field(facts, name)
    return facts


def mapping(data: Any, name: str) -> dict[str, Any]:
    """The data as a dictionary.

    Raises:
        PredictionError: not a mapping.
    """
    if not isinstance(data, Mapping):
        raise PredictionError(f"{name} must be a mapping", got=type(data).__name__)
    return dict(data)


def members_field(data: Mapping[str, Any]) -> Sequence[Any]:
    """The field ``members``: the methods inside a method.

    Raises:
        PredictionError: not a list, or an empty one.
        KeyError: the field is missing.
    """
    members = data["members"]
    if not isinstance(members, list) or not members:
        got = "an empty list" if members == [] else type(members).__name__
        raise PredictionError("members of a fitted method must be a list of methods", got=got)
    return members
