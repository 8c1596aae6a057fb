"""All ensemble methods by name, and fitted methods from JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hms_ray.competition.schema import N_CLASSES
from hms_ray.ensemble.methods.arithmetic import Equal, FittedMean, Simplex
from hms_ray.ensemble.methods.base import FittedMethod, Method
from hms_ray.ensemble.methods.combined import (
    Average,
    FittedAverage,
    FittedRecalibrated,
    Recalibrated,
    Stacked,
)
from hms_ray.ensemble.methods.greedy import Greedy
from hms_ray.ensemble.methods.json_fields import (
    array_field,
    mapping,
    members_field,
    number_field,
    weights_field,
)
from hms_ray.ensemble.methods.log_linear import FittedLogLinear, LogLinear
from hms_ray.ensemble.methods.single import BestSingle
from hms_ray.ensemble.simplex import check_weights
from hms_ray.errors import PredictionError
from hms_ray.evaluate.calibration import Recalibration


def all_methods() -> dict[str, Method]:
    """Name -> method, simplest first; a selection takes the simplest of those that tie.

    Simpler means fewer fitted numbers, then fewer methods inside: none (equal); one model
    (best_single); one weight per model (greedy, simplex), with class biases and a
    temperature (simplex_recalibrated, log_linear); one weight per model and class with the
    mean probabilities as context; the average of two methods; their average in validated
    proportions (stacked). More members did not improve the stack on real predictions.
    """
    simplex, context = Simplex(), LogLinear("context")
    methods: list[Method] = [
        Equal(),
        BestSingle(),
        Greedy(),
        simplex,
        Recalibrated(simplex),
        LogLinear("shared"),
        context,
        Average([simplex, context], "simplex_and_context"),
        Stacked([simplex, context]),
    ]
    return {method.name: method for method in methods}


def named_methods(names: Sequence[str]) -> list[Method]:
    """Methods by name, simplest first.

    Raises:
        PredictionError: an unknown name.
    """
    methods = all_methods()
    for name in names:
        if name not in methods:
            raise PredictionError(f"a method must be one of {', '.join(methods)}", got=name)
    return [method for name, method in methods.items() if name in names]


def fitted_from_json(data: Mapping[str, Any]) -> FittedMethod:
    """The fitted method that ``to_json`` described; it predicts exactly the same.

    Raises:
        PredictionError: an unknown form, or missing or invalid fields; ``where`` names the
            form and the forms around it.
    """
    form = f"form {data.get('form')}" if isinstance(data, Mapping) else None
    try:
        return _fitted(mapping(data, "a fitted method"))
    except PredictionError as error:
        place = " in ".join(str(part) for part in (error.where, form) if part is not None)
        raise PredictionError(error.rule, got=error.got, where=place or None) from None
    except KeyError as error:
        raise PredictionError(
            "a fitted method must have all its fields", got=f"no {error}", where=form
        ) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise PredictionError(
            "a fitted method must be made of numbers", got=str(error), where=form
        ) from None


def _fitted(data: dict[str, Any]) -> FittedMethod:
    match data.get("form"):
        case "mean":
            return FittedMean.from_json(data)
        case "log_linear":
            return FittedLogLinear.from_json(data)
        case "recalibrated":
            biases = array_field(data, "biases", N_CLASSES)
            correction = Recalibration(biases, number_field(data, "temperature", above=0))
            return FittedRecalibrated(fitted_from_json(data["member"]), correction)
        case "average":
            members = tuple(fitted_from_json(member) for member in members_field(data))
            return FittedAverage(members, check_weights(weights_field(data), len(members)))
        case form:
            raise PredictionError(
                "a fitted method's form must be one of mean, log_linear, recalibrated, average",
                got=str(form),
            )
