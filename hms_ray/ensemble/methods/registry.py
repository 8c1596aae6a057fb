"""All ensemble methods by name."""

from __future__ import annotations

from collections.abc import Sequence

from hms_ray.ensemble.methods.arithmetic import Equal, Simplex
from hms_ray.ensemble.methods.base import Method
from hms_ray.ensemble.methods.combined import Average, Recalibrated, Stacked
from hms_ray.ensemble.methods.greedy import Greedy
from hms_ray.ensemble.methods.log_linear import LogLinear
from hms_ray.ensemble.methods.single import BestSingle
from hms_ray.errors import PredictionError


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
