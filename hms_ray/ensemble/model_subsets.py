"""Which models a blend needs: leave-one-out, the forward path, and the smallest subset.

All blends have exact simplex weights. Subsets are chosen on the given rows; ``nested``
scores fit the weights on other patients, but not the choice of the subset.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from hms_ray.ensemble.methods.arithmetic import Simplex
from hms_ray.ensemble.methods.base import FitRows, checked_rows, nested_predictions
from hms_ray.ensemble.subset_optima import Subset, SubsetOptima, backward_subsets, forward_subsets
from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import Difference, paired_difference
from hms_ray.evaluate.metric import Array, row_sums

N_SPLITS: Final = 5
_MAX_SUBSETS: Final = 1000
"""Subsets tried at most to prove that no smaller subset is enough."""
_NEEDED_BY: Final = "a comparison of subsets"


@dataclass(frozen=True)
class LeaveOneOut:
    """The KL increase of a blend without one model.

    Attributes:
        model: its position.
        weight: in the blend of all models.
        rise: in-sample KL without the model minus KL with it, in nats, at least 0.
        nested: the same for nested KL; above 0 the model is useful.
    """

    model: int
    weight: float
    rise: float
    nested: Difference

    @property
    def adds(self) -> bool:
        """Whether the nested KL is worse without the model, and not a tie."""
        return self.nested.verdict == "worse"

    def to_json(self) -> dict[str, Any]:
        """JSON data."""
        return {
            "model": self.model,
            "weight": self.weight,
            "rise": self.rise,
            "nested_rise": self.nested.to_json(),
            "adds": self.adds,
        }


@dataclass(frozen=True)
class ModelSubset:
    """A subset of the models and its best blend.

    Attributes:
        members: positions; in the order of addition on a forward path, else ascending.
        weights: (M,) float64, 0 outside of the subset.
        kl: in-sample KL of the best blend, in nats.
        nested: nested KL, in nats.
        cost: summed cost of the models (default: their number).
        proven: whether it is proven that no smaller subset is within the tolerance.
    """

    members: Subset
    weights: Array
    kl: float
    nested: float
    cost: float
    proven: bool = False

    def to_json(self) -> dict[str, Any]:
        """JSON data."""
        return {
            "members": list(self.members),
            "weights": self.weights.tolist(),
            "kl": self.kl,
            "nested": self.nested,
            "cost": self.cost,
            "proven": self.proven,
        }


@dataclass(frozen=True)
class SubsetSearch:
    """Searches subsets of the models of one array of predictions; see ``from_arrays``.

    Attributes:
        rows: the rows that count.
        optima: exact optima of subsets.
        n_splits: splits by patient of nested scores.
        seed: of the splits.
    """

    rows: FitRows
    optima: SubsetOptima
    n_splits: int
    seed: int

    @classmethod
    def from_arrays(
        cls,
        targets: ArrayLike,
        probabilities: ArrayLike,
        patients: ArrayLike,
        row_weights: ArrayLike | None = None,
        *,
        n_splits: int = N_SPLITS,
        seed: int = 0,
    ) -> SubsetSearch:
        """Checks the rows.

        Args:
            targets: (n, 6) vote shares.
            probabilities: (M, n, 6) predictions of M models on the same rows.
            patients: (n,) patient of each row.
            row_weights: (n,); see ``Method.fit``.
            n_splits: splits by patient, at most as many as there are patients.
            seed: of the splits.

        Raises:
            PredictionError: as ``Method.fit``, or fewer than two patients have rows of
                positive weight.
        """
        rows = checked_rows(targets, probabilities, row_weights, patients)
        n_patients = len(np.unique(rows.patients_for(_NEEDED_BY)))
        return cls(rows, SubsetOptima(rows), min(n_splits, n_patients), seed)

    def leave_one_out(self) -> tuple[LeaveOneOut, ...]:
        """One result per model, in their order; requires at least two models."""
        everyone = tuple(range(self.optima.n_models))
        if len(everyone) < 2:
            raise PredictionError("leave-one-out needs at least two models", got="one")
        with_all = self._nested_rows(everyone)
        weights = self.optima.weights(everyone)
        results = []
        for model in everyone:
            rest = tuple(other for other in everyone if other != model)
            # Without a model of weight 0 the in-sample optimum stays the same.
            rise = self.optima.kl(rest) - self.optima.kl(everyone) if weights[model] else 0.0
            without = self._nested_rows(rest)
            nested = paired_difference(without, with_all, self.rows.patients_for(_NEEDED_BY))
            results.append(LeaveOneOut(model, float(weights[model]), max(rise, 0.0), nested))
        return tuple(results)

    def forward_path(self) -> tuple[ModelSubset, ...]:
        """The best single model, then one more model each time: the one that lowers the KL most."""
        return tuple(self.describe(members) for members in forward_subsets(self.optima))

    def minimal(self, tolerance: float) -> ModelSubset:
        """A smallest subset whose KL is at most ``tolerance`` above that of all models.

        The smaller result of the forward path and of backward elimination; if there are few
        smaller subsets, all are tried, which finds a smaller one or proves it smallest.

        Args:
            tolerance: in nats, at least 0.

        Raises:
            PredictionError: a negative tolerance.
        """
        if not tolerance >= 0:
            raise PredictionError("a tolerance must be at least 0", got=f"{tolerance:g}")
        everyone = tuple(range(self.optima.n_models))
        # Optima are exact to 1e-10, and tolerance 0 must find the models with weight.
        most = self.optima.kl(everyone) + tolerance + 1e-9
        support = np.flatnonzero(self.optima.weights(everyone)).tolist()
        met = [*forward_subsets(self.optima), *backward_subsets(self.optima, support)]
        found = min(
            (members for members in met if self.optima.kl(members) <= most),
            key=lambda members: (len(members), self.optima.kl(members)),
        )
        found, proven = self._shrink(found, most)
        return self.describe(tuple(sorted(found)), proven=proven)

    def cost_front(self, costs: ArrayLike) -> tuple[ModelSubset, ...]:
        """The Pareto front of KL against cost, cheapest subset first.

        Candidates are the subsets of forward and backward search, with and without costs,
        and the single models. Models of weight 0 are dropped and cost nothing.

        Args:
            costs: (M,) above 0, such as milliseconds per recording.

        Raises:
            PredictionError: another shape, or a cost that is not above 0.
        """
        prices = np.asarray(costs, np.float64)
        if prices.shape != (self.optima.n_models,):
            raise PredictionError(
                f"costs must be one number for each of {self.optima.n_models} models",
                got=str(prices.shape),
            )
        if not (np.isfinite(prices).all() and (prices > 0).all()):
            raise PredictionError(
                "costs must be finite and above 0",
                got=f"values from {prices.min():g} to {prices.max():g}",
            )
        everyone = range(self.optima.n_models)
        met: set[Subset] = set()
        for regard in (None, prices):
            met |= set(forward_subsets(self.optima, regard))
            met |= set(backward_subsets(self.optima, everyone, regard))
        met |= {(model,) for model in everyone}
        used = {tuple(np.flatnonzero(self.optima.weights(members)).tolist()) for members in met}
        # At equal cost the best subset comes first; sums may differ in their last digits.
        ordered = sorted(
            used,
            key=lambda members: (
                float(f"{prices[list(members)].sum():.12g}"),
                self.optima.kl(members),
                members,
            ),
        )
        front, lowest = [], math.inf
        for members in ordered:
            if self.optima.kl(members) < lowest - 1e-9:
                lowest = self.optima.kl(members)
                front.append(self.describe(members, prices))
        return tuple(front)

    def describe(
        self, members: Subset, costs: Array | None = None, *, proven: bool = False
    ) -> ModelSubset:
        """A subset with its weights and scores."""
        return ModelSubset(
            members=members,
            weights=self.optima.weights(members),
            kl=self.optima.kl(members),
            nested=float(np.average(self._nested_rows(members), weights=self.rows.weights)),
            cost=float(len(members) if costs is None else costs[list(members)].sum()),
            proven=proven,
        )

    def _shrink(self, found: Subset, most: float) -> tuple[Subset, bool]:
        """A smallest subset with a KL of at most ``most``, and whether that is proven."""
        if len(found) == 1:
            return found, True
        everyone = range(self.optima.n_models)
        # A model that all others together cannot replace is in every such subset.
        needed = {
            model
            for model in found
            if self.optima.kl(tuple(other for other in everyone if other != model)) > most
        }
        free = [model for model in everyone if model not in needed]
        while len(found) > max(len(needed), 1):
            more = len(found) - 1 - len(needed)
            if math.comb(len(free), more) > _MAX_SUBSETS:
                return found, False
            tried = [(*needed, *added) for added in itertools.combinations(free, more)]
            best = min(tried, key=self.optima.kl)
            if self.optima.kl(best) > most:
                return found, True
            found = best
        return found, True

    def _nested_rows(self, members: Subset) -> Array:
        """Nested KL (n,) of each row under the subset's blend."""
        rows = replace(self.rows, models=self.rows.models[list(members)])
        (predicted,) = nested_predictions([Simplex()], rows, self.n_splits, self.seed, _NEEDED_BY)
        return row_sums(rows.targets, predicted)
