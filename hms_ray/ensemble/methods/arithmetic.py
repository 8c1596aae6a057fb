"""Arithmetic pools: weighted means of probabilities, one weight a model or model and class.

The linear opinion pool (Genest and Zidek, "Combining Probability Distributions: A
Critique and an Annotated Bibliography", Statistical Science 1, 1986, section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hms_ray.competition.schema import N_CLASSES
from hms_ray.ensemble.constrained import Cap, constrained_weights
from hms_ray.ensemble.methods.base import (
    CheckedPool,
    Rows,
    checked_models,
)
from hms_ray.ensemble.methods.description import (
    described_facts,
    described_number,
    described_weights,
)
from hms_ray.ensemble.simplex import (
    MAX_ITERATIONS,
    TOLERANCE,
    blend_probabilities,
    check_weights,
    mixture_problem,
    solved_weights,
)
from hms_ray.ensemble.solvers.mixture import solve_mixture
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import CLIP, Array


@dataclass(frozen=True)
class FittedMean:
    """A weighted mean.

    Attributes:
        weights: (M,) float64, at least 0, sum 1.
        facts: numbers of the fit, such as the duality ``gap`` in nats.
    """

    weights: Array
    facts: dict[str, float] = field(default_factory=dict)

    def predict(self, probabilities: ArrayLike) -> Array:
        """As ``FittedPool.predict``; each model is clipped as the metric clips it."""
        return blend_probabilities(checked_models(probabilities, len(self.weights)), self.weights)

    def to_json(self) -> dict[str, Any]:
        """As ``FittedPool.to_json``."""
        return {"form": "mean", "weights": self.weights.tolist(), "facts": self.facts}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FittedMean:
        """The pool that ``to_json`` described."""
        weights = described_weights(data, None)
        return cls(check_weights(weights, len(weights)), described_facts(data))


@dataclass(frozen=True)
class Equal(CheckedPool[FittedMean]):
    """Every model counts the same; nothing is fitted."""

    name: str = "equal"

    def fit_rows(self, rows: Rows) -> FittedMean:
        """As ``CheckedPool.fit_rows``."""
        return FittedMean(np.full(len(rows.models), 1 / len(rows.models)))


@dataclass(frozen=True)
class Fixed(CheckedPool[FittedMean]):
    """Weights that are given, such as a published ensemble's; nothing is fitted.

    Attributes:
        weights: (M,) at least 0, of sum 1.
    """

    weights: Sequence[float]
    name: str = "fixed"

    def fit_rows(self, rows: Rows) -> FittedMean:
        """As ``CheckedPool.fit_rows``; errors of ``check_weights``."""
        return FittedMean(check_weights(self.weights, len(rows.models)))


@dataclass(frozen=True)
class Simplex(CheckedPool[FittedMean]):
    """The exact best weighted mean, with its certificate.

    The facts of a fit have the ``gap`` to the best weights allowed, and the Newton steps
    (``iterations``) or, where weights are constrained, the ``corners`` that were met.

    Attributes:
        caps: the most that groups of models may weigh.
        fixed: (position of a model, its weight) pairs.
    """

    caps: Sequence[Cap] = ()
    fixed: Sequence[tuple[int, float]] = ()
    name: str = "simplex"

    def fit_rows(self, rows: Rows) -> FittedMean:
        """As ``CheckedPool.fit_rows``; errors of ``constrained_weights`` where constrained."""
        arguments = (rows.targets, rows.models, rows.weights)
        if self.caps or self.fixed:
            fit = constrained_weights(*arguments, caps=self.caps, fixed=dict(self.fixed))
            steps = "corners"
        else:
            fit, steps = solved_weights(*arguments), "iterations"
        facts = {"objective": fit.objective, "gap": fit.gap, steps: fit.iterations}
        return FittedMean(fit.weights, facts)


@dataclass(frozen=True)
class TwoLevel(CheckedPool[FittedMean]):
    """Simplex weights within each family of models, then across the families' blends.

    Attributes:
        families: (M,) label of each model's family.
    """

    families: Sequence[str]
    name: str = "two_level"

    def fit_rows(self, rows: Rows) -> FittedMean:
        """As ``CheckedPool.fit_rows``, and an error where the labels do not fit the models."""
        if len(self.families) != len(rows.models):
            raise PredictionError(
                "there must be one family a model",
                got=f"{len(self.families)} families for {len(rows.models)} models",
            )
        labels = np.asarray(self.families)
        inside = np.zeros((len(set(self.families)), len(labels)))
        blends = []
        for number, family in enumerate(dict.fromkeys(self.families)):
            members = np.flatnonzero(labels == family)
            models = rows.models[members]
            inside[number, members] = solved_weights(rows.targets, models, rows.weights).weights
            blends.append(blend_probabilities(models, inside[number, members]))
        across = solved_weights(rows.targets, np.stack(blends), rows.weights)
        weights = across.weights @ inside
        facts = {"objective": across.objective, "gap_across": across.gap}
        return FittedMean(weights / weights.sum(), facts)


@dataclass(frozen=True)
class FittedClassMean:
    """A weighted mean by class, brought back to sum 1.

    Attributes:
        weights: (6, M) float64, at least 0.
        gap: the largest duality gap of the six fits.
    """

    weights: Array
    gap: float

    def predict(self, probabilities: ArrayLike) -> Array:
        """As ``FittedPool.predict``."""
        models = checked_models(probabilities, self.weights.shape[1])
        mixed = np.zeros(models.shape[1:])
        for model, weights in zip(models, self.weights.T, strict=True):
            mixed += weights * np.clip(model, CLIP, 1 - CLIP)
        # A class that nothing was given to would leave rows without any sum.
        mixed = np.maximum(mixed, CLIP)
        normalised: Array = mixed / mixed.sum(axis=1, keepdims=True)
        return normalised

    def to_json(self) -> dict[str, Any]:
        """As ``FittedPool.to_json``."""
        return {"form": "class_mean", "weights": self.weights.tolist(), "gap": self.gap}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FittedClassMean:
        """The pool that ``to_json`` described."""
        return cls(described_weights(data, N_CLASSES, None), described_number(data, "gap"))


@dataclass(frozen=True)
class SimplexPerClass(CheckedPool[FittedClassMean]):
    """Weights at least 0 for each class, fitted by the generalised KL divergence.

    With the sum of a row free, the I-divergence (Csiszar, Annals of Statistics 19,
    1991) ``sum_ik t_ik ln(t_ik / q_ik) - t_ik + q_ik`` splits into one convex problem a
    class. At its optimum the predicted mass of a class is the voted one, so with each
    model's share of that mass as the unknown it is the mixture problem of ``blend``,
    solved exactly. Predictions are divided by their sums afterwards.
    """

    name: str = "simplex_per_class"

    def fit_rows(self, rows: Rows) -> FittedClassMean:
        """As ``CheckedPool.fit_rows``."""
        weights, gaps = np.zeros((N_CLASSES, len(rows.models))), [0.0]
        for number in range(N_CLASSES):
            shares = rows.weights * rows.targets[:, number]
            voted = shares.sum()
            if not voted:
                continue
            columns = np.empty((len(rows.models) + 1, len(shares)))
            np.clip(rows.models[:, :, number], CLIP, 1 - CLIP, out=columns[:-1])
            mass = columns[:-1] @ rows.weights
            columns[:-1] /= mass[:, None]
            columns[-1] = columns[:-1].mean(axis=0)
            used = np.flatnonzero(shares)
            found, gap, _ = solve_mixture(
                columns[:, used], shares[used] / voted, TOLERANCE, MAX_ITERATIONS
            )
            weights[number] = found * voted / mass
            gaps.append(gap)
        return FittedClassMean(weights, max(gaps))


def penalised_weights(rows: Rows, strengths: Sequence[float]) -> Array:
    """The (S, M) weights of lowest KL plus ``-strength * mean_m ln w_m``.

    The penalty is the logarithm of a symmetric Dirichlet prior, so weights are drawn
    towards equal ones and none is 0. It has the form of the loss itself: M more entries
    of share ``strength / M``, each of which one model alone explains; so the exact
    search finds its optimum, from that of the next stronger penalty.

    Args:
        rows: to fit on.
        strengths: in nats, at least 0.
    """
    shares, columns, _ = mixture_problem(rows.targets, rows.models, rows.weights)
    n_models, n_entries = len(rows.models), len(shares)
    alone = np.concatenate([np.eye(n_models), np.full((1, n_models), 1 / n_models)])
    columns = np.concatenate([columns, alone], axis=1)
    weights, start = np.empty((len(strengths), n_models)), None
    for number in np.argsort(-np.asarray(strengths), kind="stable"):
        penalty = np.full(n_models, strengths[number] / n_models)
        entries = n_entries + (n_models if strengths[number] else 0)
        counted = np.append(shares, penalty)[:entries]
        start, _, _ = solve_mixture(
            columns[:, :entries], counted / counted.sum(), TOLERANCE, MAX_ITERATIONS, start
        )
        weights[number] = start
    return weights
