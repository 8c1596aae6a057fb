"""Weighted geometric means of probabilities with temperature and class biases.

``q_k proportional to exp(b_k + sum_m w_m ln p_mk)``, the logarithmic opinion pool
(Genest and Zidek, "Combining Probability Distributions: A Critique and an Annotated
Bibliography", Statistical Science 1, 1986, section 3). The weights need not sum to 1:
one over their sum is the temperature. The context form has weights per class w_mk, and adds
to every class's score the mean probabilities of all six classes and the log of its own
mean. Both are convex and fitted with a ridge around equal weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from hms_ray.competition.schema import N_CLASSES
from hms_ray.ensemble.methods.base import FitRows, FittedMethod, Method, checked_models
from hms_ray.ensemble.methods.json_fields import FiniteArray, Number
from hms_ray.evaluate.metric import Array
from hms_ray.evaluate.multinomial import Ridge, fit_multinomial, softmax_scores

Kind = Literal["shared", "context"]

FLOOR: Final = 1e-4
"""Lower bound of probabilities before the logarithm; otherwise one model with probability 0
would decide alone. On real predictions 1e-3 and 1e-15 differ by 3e-4 nats only."""

RIDGE: Final = 1e-2
"""Nats for half a squared unit of a weight. On real predictions 0.1 is 2e-3 nats worse on
rows with many votes, and 1e-3 is 2e-3 nats worse on all rows."""

BIAS_RIDGE: Final = 1e-4
"""Keeps the bias of a class without votes finite; changes others by less than 1e-3."""

_CONTEXT: Final = 1 + N_CLASSES


@dataclass(frozen=True)
class FittedLogLinear(FittedMethod):
    """Fitted weights.

    Attributes:
        kind: ``shared`` or ``context``.
        weights: (6, M) float64 of the log probabilities; equal rows if ``shared``.
        biases: (6,) float64, sum 0.
        context: (6, 7) float64 of the log of the mean and of the six mean probabilities;
            zeros if ``shared``.
        floor: lower bound of the probabilities.
        gap: upper bound of the penalised loss above its minimum, in nats.
    """

    kind: Kind
    weights: Annotated[Array, FiniteArray(N_CLASSES, None)]
    biases: Annotated[Array, FiniteArray(N_CLASSES)]
    context: Annotated[Array, FiniteArray(N_CLASSES, _CONTEXT)]
    floor: Annotated[Number, Field(gt=0, lt=1)]
    gap: Number
    form: ClassVar[str] = "log_linear"

    @property
    def temperature(self) -> float:
        """One over the sum of the weights, averaged over classes; above 1 it softens."""
        return N_CLASSES / float(self.weights.sum())

    def predict(self, probabilities: ArrayLike) -> Array:
        """See ``FittedMethod.predict``."""
        models = checked_models(probabilities, self.weights.shape[1])
        parts = [self.weights, self.biases[:, None]]
        if self.kind == "context":
            parts.append(self.context)
        features = _features(models, self.floor, self.kind == "context")
        return softmax_scores(features, np.concatenate(parts, axis=1))


@dataclass(frozen=True)
class LogLinear(Method):
    """A weighted geometric mean.

    Attributes:
        kind: ``shared``: one weight per model; ``context``: one per model and class, and
            the mean probabilities of all classes.
        ridge: strength of the ridge around equal weights (context: around 0).
        floor: lower bound of the probabilities, above 0.
    """

    kind: Kind = "shared"
    ridge: float = RIDGE
    floor: float = FLOOR

    @property
    def name(self) -> str:
        """``log_linear`` or ``log_linear_context``."""
        return "log_linear" if self.kind == "shared" else f"log_linear_{self.kind}"

    def fit_rows(self, rows: FitRows) -> FittedLogLinear:
        """See ``Method.fit_rows``."""
        n_models, with_context = len(rows.models), self.kind == "context"
        n_context = _CONTEXT if with_context else 0
        sizes = [n_models, 1, n_context]
        ridge = Ridge(
            prior=np.repeat([1 / n_models, 0.0, 0.0], sizes),
            strength=np.repeat([self.ridge, BIAS_RIDGE, self.ridge], sizes),
            tied=np.repeat([self.kind == "shared", False, False], sizes),
        )
        features = _features(rows.models, self.floor, with_context)
        fit = fit_multinomial(features, rows.targets, rows.weights, ridge)
        weights, bias, context = np.split(fit.coefficients, np.cumsum(sizes)[:-1], axis=1)
        biases = bias[:, 0] - bias.mean()
        context = context if with_context else np.zeros((N_CLASSES, _CONTEXT))
        return FittedLogLinear(self.kind, weights, biases, context, self.floor, fit.gap)


def _features(models: NDArray[np.floating], floor: float, context: bool) -> Array:
    """(6, J, n): the models' log probabilities, 1, and with context seven more."""
    n_models, n_rows, _ = models.shape
    size = n_models + 1 + (_CONTEXT if context else 0)
    features = np.empty((N_CLASSES, size, n_rows))
    for number, model in enumerate(models):
        np.maximum(model.T, floor, out=features[:, number])
    if context:
        # Floored like the logarithms, so that both use the same probabilities.
        mean = features[:, :n_models].mean(axis=1)
        features[:, n_models + 1] = np.log(mean)
        features[:, n_models + 2 :] = mean
    np.log(features[:, :n_models], out=features[:, :n_models])
    features[:, n_models] = 1.0
    return features
