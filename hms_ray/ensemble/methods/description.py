"""Parts of a fitted pool's description, checked as they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hms_ray.ensemble.methods.base import described_array
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import Array


def described_number(
    data: Mapping[str, Any], name: str, above: float = -math.inf, below: float = math.inf
) -> float:
    """A finite number of a fitted pool's description, strictly between two others.

    Raises:
        PredictionError: where it is none, or not between them.
        KeyError: where it is not there.
    """
    value = data[name]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not (math.isfinite(value) and above < value < below):
        bounds = [f"above {above:g}"] if above > -math.inf else []
        bounds += [f"below {below:g}"] if below < math.inf else []
        raise PredictionError(
            " and ".join([f"{name} of a fitted pool must be a finite number", *bounds]), got=value
        )
    return float(value)


def described_weights(data: Mapping[str, Any], *shape: int | None) -> Array:
    """The weights of a description, at least 0; errors as of ``described_array``.

    Raises:
        PredictionError: where one is negative, or there is no model.
    """
    weights = described_array(data, "weights", *shape)
    if not weights.size:
        raise PredictionError("a fitted pool must have weights", got="none")
    if (weights < 0).any():
        raise PredictionError(
            "weights of a fitted pool must be at least 0", got=f"{np.min(weights):g}"
        )
    return weights


def described_facts(data: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of the fit by name; ``facts`` of a description.

    Raises:
        PredictionError: where they are no mapping, or one is no finite number.
        KeyError: where they are not there.
    """
    facts = described(data["facts"], "facts")
    for name in facts:
        described_number(facts, name)
    return facts


def described(data: Any, name: str) -> dict[str, Any]:
    """A mapping of a description.

    Raises:
        PredictionError: where it is something else.
    """
    if not isinstance(data, Mapping):
        raise PredictionError(f"{name} must be a mapping", got=type(data).__name__)
    return dict(data)


def described_members(data: Mapping[str, Any]) -> Sequence[Any]:
    """The descriptions of the pools inside a pool.

    Raises:
        PredictionError: where they are no list, or none.
        KeyError: where they are not there.
    """
    members = data["members"]
    if not isinstance(members, list) or not members:
        got = "an empty list" if members == [] else type(members).__name__
        raise PredictionError("members of a fitted pool must be a list of pools", got=got)
    return members
