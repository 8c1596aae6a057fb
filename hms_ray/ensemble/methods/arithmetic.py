"""Weighted arithmetic means of probabilities, one weight per model.

The linear opinion pool (Genest and Zidek, "Combining Probability Distributions: A
Critique and an Annotated Bibliography", Statistical Science 1, 1986, section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from hms_ray.ensemble.constrained import Cap, constrained_weights
from hms_ray.ensemble.methods.base import FitRows, FittedMethod, Method, checked_models
from hms_ray.ensemble.methods.json_fields import FiniteArray, Number
from hms_ray.ensemble.simplex import blend_probabilities, check_weights, simplex_weights
from hms_ray.evaluate.metric import Array


@dataclass(frozen=True)
class FittedMean(FittedMethod):
    """A weighted mean.

    Attributes:
        weights: (M,) float64, at least 0, sum 1.
        facts: numbers of the fit, such as the duality ``gap`` in nats.
    """

    weights: Annotated[Array, FiniteArray(None)]
    facts: dict[str, Number] = field(default_factory=dict)
    form: ClassVar[str] = "mean"

    def __post_init__(self) -> None:
        check_weights(self.weights, len(self.weights))

    def predict(self, probabilities: ArrayLike) -> Array:
        """See ``FittedMethod.predict``; each model is clipped as the metric clips it."""
        return blend_probabilities(checked_models(probabilities, len(self.weights)), self.weights)


@dataclass(frozen=True)
class Equal(Method):
    """The plain mean; nothing is fitted."""

    name: str = "equal"

    def fit_rows(self, rows: FitRows) -> FittedMean:
        """See ``Method.fit_rows``."""
        return FittedMean(np.full(len(rows.models), 1 / len(rows.models)))


@dataclass(frozen=True)
class Fixed(Method):
    """Given weights, such as those of a published ensemble; nothing is fitted.

    Attributes:
        weights: (M,) at least 0, sum 1.
    """

    weights: Sequence[float]
    name: str = "fixed"

    def fit_rows(self, rows: FitRows) -> FittedMean:
        """See ``Method.fit_rows``; raises as ``check_weights``."""
        return FittedMean(check_weights(self.weights, len(rows.models)))


@dataclass(frozen=True)
class Simplex(Method):
    """The exact best weighted mean, with its duality gap.

    The facts of a fit are the ``objective``, the ``gap`` to the best weights allowed, and
    the Newton steps (``iterations``) or, with constraints, the ``corners`` visited.

    Attributes:
        caps: upper bounds of the summed weight of groups of models.
        fixed: (position of a model, its weight) pairs.
    """

    caps: Sequence[Cap] = ()
    fixed: Sequence[tuple[int, float]] = ()
    name: str = "simplex"

    def fit_rows(self, rows: FitRows) -> FittedMean:
        """See ``Method.fit_rows``; with constraints it raises as ``constrained_weights``."""
        arguments = (rows.targets, rows.models, rows.weights)
        if self.caps or self.fixed:
            fit = constrained_weights(*arguments, caps=self.caps, fixed=dict(self.fixed))
            steps = "corners"
        else:
            fit, steps = simplex_weights(*arguments), "iterations"
        facts = {"objective": fit.objective, "gap": fit.gap, steps: fit.iterations}
        return FittedMean(fit.weights, facts)
