"""All pools by name, from the simplest to the most elaborate, and back from plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hms_ray.competition.schema import N_CLASSES
from hms_ray.ensemble.methods.arithmetic import (
    Equal,
    FittedClassMean,
    FittedMean,
    Simplex,
    SimplexPerClass,
    TwoLevel,
)
from hms_ray.ensemble.methods.base import FittedPool, Pool, described_array
from hms_ray.ensemble.methods.combined import (
    Average,
    FittedAverage,
    FittedRecalibrated,
    Recalibrated,
    Shrunk,
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


def all_pools(families: Sequence[str] | None = None) -> dict[str, Pool]:
    """Name -> pool, in the order of simplicity that a choice between ties goes by.

    Simpler is: fewer fitted numbers, then fewer pools inside. Nothing fitted (equal);
    one model (best single); one weight a model (greedy, simplex, shrunk, two levels);
    and a correction of class shares and confidence (recalibrated, log-linear); one
    weight a model and class; these and the mean opinion as context; averages of two;
    averages whose proportions are validated (stacked). More members made no better
    stack on real predictions.

    Args:
        families: (M,) label of each model's family, for the pool of two levels, which
            is left out where absent.
    """
    simplex, per_class, context = Simplex(), LogLinear("per_class"), LogLinear("context")
    pools: list[Pool] = [Equal(), BestSingle(), Greedy(), simplex, Shrunk()]
    if families is not None:
        pools.append(TwoLevel(families))
    pools += [
        Recalibrated(simplex),
        LogLinear("shared"),
        SimplexPerClass(),
        per_class,
        context,
        Average("simplex_and_per_class", [simplex, per_class]),
        Average("simplex_and_context", [simplex, context]),
        Stacked("stacked", [simplex, context]),
    ]
    return {pool.name: pool for pool in pools}


def named_pools(names: Sequence[str], families: Sequence[str] | None = None) -> list[Pool]:
    """Pools by name, in the order of simplicity.

    Raises:
        PredictionError: for a name that there is no pool of.
    """
    pools = all_pools(families)
    for name in names:
        if name not in pools:
            raise PredictionError(
                f"a method must be one of {', '.join(pools)}",
                got=name,
                fix="two_level needs the family of each model, of two at least: --family "
                "FAMILY=PATTERN."
                if name == "two_level"
                else None,
            )
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
        case "class_mean":
            return FittedClassMean.from_json(data)
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
                "a fitted pool's form must be one of mean, class_mean, log_linear, "
                "recalibrated, average",
                got=str(form),
            )
