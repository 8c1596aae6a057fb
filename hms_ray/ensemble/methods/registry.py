"""All pools by name, from the simplest to the most elaborate, and back from plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hms_ray.competition.schema import N_CLASSES
from hms_ray.ensemble.methods.arithmetic import (
    Equal,
    FittedMean,
    Simplex,
)
from hms_ray.ensemble.methods.base import FittedPool, Pool, described_array
from hms_ray.ensemble.methods.combined import (
    Average,
    FittedAverage,
    FittedRecalibrated,
    Recalibrated,
    Stacked,
)
from hms_ray.ensemble.methods.description import (
    described,
    described_members,
    described_number,
    described_weights,
)
from hms_ray.ensemble.methods.greedy import Greedy
from hms_ray.ensemble.methods.log_linear import FittedLogLinear, LogLinear
from hms_ray.ensemble.methods.single import BestSingle
from hms_ray.ensemble.simplex import check_weights
from hms_ray.errors import PredictionError
from hms_ray.evaluate.calibration import Recalibration


def all_pools() -> dict[str, Pool]:
    """Name -> pool, from the simplest on; a selection prefers the simplest of those that tie.

    Simpler is: fewer fitted numbers, then fewer methods inside. Nothing fitted (equal); one
    model (best_single); one weight per model (greedy, simplex); and a correction of class
    shares and confidence (simplex_recalibrated, log_linear); one weight per model and class
    with the mean opinion as context; the average of two methods; their average in validated
    proportions (stacked). More members made no better stack on real predictions.
    """
    simplex, context = Simplex(), LogLinear("context")
    pools: list[Pool] = [
        Equal(),
        BestSingle(),
        Greedy(),
        simplex,
        Recalibrated(simplex),
        LogLinear("shared"),
        context,
        Average("simplex_and_context", [simplex, context]),
        Stacked("stacked", [simplex, context]),
    ]
    return {pool.name: pool for pool in pools}


def named_pools(names: Sequence[str]) -> list[Pool]:
    """Pools by name, in the order of simplicity.

    Raises:
        PredictionError: for an unknown name.
    """
    pools = all_pools()
    for name in names:
        if name not in pools:
            raise PredictionError(f"a method must be one of {', '.join(pools)}", got=name)
    return [pool for name, pool in pools.items() if name in names]


def fitted_from_json(data: Mapping[str, Any]) -> FittedPool:
    """The fitted pool that ``to_json`` described; it predicts the same.

    Raises:
        PredictionError: for a form that is not known, and for missing or broken parts;
            ``where`` names the form, and those of the pools around it.
    """
    form = f"form {data.get('form')}" if isinstance(data, Mapping) else None
    try:
        return _fitted(described(data, "a fitted pool"))
    except PredictionError as error:
        place = " in ".join(str(part) for part in (error.where, form) if part is not None)
        raise PredictionError(error.rule, got=error.got, where=place or None) from None
    except KeyError as error:
        raise PredictionError(
            "a fitted pool must have all its parts", got=f"no {error}", where=form
        ) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise PredictionError(
            "a fitted pool must be made of numbers", got=str(error), where=form
        ) from None


def _fitted(data: dict[str, Any]) -> FittedPool:
    match data.get("form"):
        case "mean":
            return FittedMean.from_json(data)
        case "log_linear":
            return FittedLogLinear.from_json(data)
        case "recalibrated":
            biases = described_array(data, "biases", N_CLASSES)
            correction = Recalibration(biases, described_number(data, "temperature", above=0))
            return FittedRecalibrated(fitted_from_json(data["member"]), correction)
        case "average":
            members = tuple(fitted_from_json(member) for member in described_members(data))
            weights = check_weights(described_weights(data, None), len(members))
            return FittedAverage(members, weights)
        case form:
            raise PredictionError(
                "a fitted pool's form must be one of mean, log_linear, recalibrated, average",
                got=str(form),
            )
