"""Which models a blend needs: what each adds, in which order, and how few are enough.

All of it is about the exact simplex weights of ``blend``. Sets are chosen on the rows
given; ``nested`` figures fit the weights on other patients, not the choice of the set.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hms_ray.ensemble.cross_validation import nested_blend
from hms_ray.ensemble.methods.base import Rows, checked_rows
from hms_ray.ensemble.subset_optima import Members, Optima, backward_sets, forward_sets
from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import Difference, paired_difference
from hms_ray.evaluate.metric import Array, row_sums

N_SPLITS: Final = 5
_MOST_SUBSETS: Final = 1000
"""Subsets tried at most to prove that no smaller set is enough."""


@dataclass(frozen=True)
class Worth:
    """What a blend loses without one model.

    Attributes:
        model: its position.
        weight: in the blend of all models.
        rise: in-sample KL without it minus KL with it, in nats, at least 0.
        nested: the same, weights fitted on other patients; above 0 it is missed.
    """

    model: int
    weight: float
    rise: float
    nested: Difference

    @property
    def adds(self) -> bool:
        """Whether other patients' blends are worse without it, beyond a tie."""
        return self.nested.verdict == "worse"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        ends = {"mean": self.nested.mean, "low": self.nested.low, "high": self.nested.high}
        return {
            "model": self.model,
            "weight": self.weight,
            "rise": self.rise,
            "nested_rise": ends,
            "adds": self.adds,
        }


@dataclass(frozen=True)
class ModelSet:
    """A set of models and its best blend.

    Attributes:
        members: positions; in the order of joining on a forward path, else ascending.
        weights: (M,) float64, 0 outside of the members.
        kl: in-sample KL of the best blend, in nats.
        nested: KL with weights fitted on other patients, in nats.
        cost: summed cost of the members; their number where no costs are given.
        proven: whether no smaller set is within the tolerance, where one was asked for.
    """

    members: Members
    weights: Array
    kl: float
    nested: float
    cost: float
    proven: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "members": list(self.members),
            "weights": self.weights.tolist(),
            "kl": self.kl,
            "nested": self.nested,
            "cost": self.cost,
            "proven": self.proven,
        }


@dataclass(frozen=True)
class ModelSets:
    """The questions about sets, for one array of predictions; made by ``of``.

    Attributes:
        rows: that count.
        optima: exact optima of subsets.
        n_splits: splits by patient of nested figures.
        seed: of the splits.
    """

    rows: Rows
    optima: Optima
    n_splits: int
    seed: int

    @classmethod
    def of(
        cls,
        targets: ArrayLike,
        probabilities: ArrayLike,
        patients: ArrayLike,
        row_weights: ArrayLike | None = None,
        *,
        n_splits: int = N_SPLITS,
        seed: int = 0,
    ) -> ModelSets:
        """Prepares the questions.

        Args:
            targets: (n, 6) vote shares.
            probabilities: (M, n, 6) predictions of M models on the same rows.
            patients: (n,) patient of each row.
            row_weights: (n,) as in ``simplex_weights``.
            n_splits: splits by patient; as many as there are patients, if fewer.
            seed: of the splits.

        Raises:
            PredictionError: as ``Pool.fit``; two patients at least must have rows that
                count.
        """
        rows = checked_rows(targets, probabilities, row_weights, patients)
        owners = rows.owners("a comparison of sets")
        return cls(rows, Optima(rows), min(n_splits, len(np.unique(owners))), seed)

    def leave_one_out(self) -> tuple[Worth, ...]:
        """The worth of every model, in their order; at least two models are needed."""
        everyone = tuple(range(self.optima.n_models))
        if len(everyone) < 2:
            raise PredictionError("a model's worth needs another model", got="one model")
        with_all = self._nested_rows(everyone)
        weights = self.optima.weights(everyone)
        worths = []
        for model in everyone:
            rest = tuple(other for other in everyone if other != model)
            # A model of weight 0 changes nothing in sample, and the optimum is known.
            rise = self.optima.kl(rest) - self.optima.kl(everyone) if weights[model] else 0.0
            without = self._nested_rows(rest)
            nested = paired_difference(without, with_all, self._owners)
            worths.append(Worth(model, float(weights[model]), max(rise, 0.0), nested))
        return tuple(worths)

    def forward_path(self) -> tuple[ModelSet, ...]:
        """The best single model, then each time with the model that lowers the KL most."""
        return tuple(self.describe(members) for members in forward_sets(self.optima))

    def minimal(self, tolerance: float) -> ModelSet:
        """A smallest set whose KL is at most ``tolerance`` above that of all models.

        The smaller of what the forward path and backward elimination find; it is made
        smaller, or proven to be smallest, by trying all smaller sets where they are few.

        Args:
            tolerance: in nats, at least 0.

        Raises:
            PredictionError: for a negative tolerance.
        """
        if not tolerance >= 0:
            raise PredictionError("a tolerance must be at least 0", got=f"{tolerance:g}")
        everyone = tuple(range(self.optima.n_models))
        # The optimum is known to 1e-10 only, and tolerance 0 must find the support.
        most = self.optima.kl(everyone) + tolerance + 1e-9
        support = np.flatnonzero(self.optima.weights(everyone)).tolist()
        met = [*forward_sets(self.optima), *backward_sets(self.optima, support)]
        found = min(
            (members for members in met if self.optima.kl(members) <= most),
            key=lambda members: (len(members), self.optima.kl(members)),
        )
        found, proven = self._shrink(found, most)
        return self.describe(tuple(sorted(found)), proven=proven)

    def cost_front(self, costs: ArrayLike) -> tuple[ModelSet, ...]:
        """Sets of which none is both dearer and worse than another one, cheapest first.

        Among the sets met by forward and backward search, with and without regard to
        cost, and the single models; a model of weight 0 costs nothing, for it is left out.

        Args:
            costs: (M,) above 0, such as milliseconds a recording.

        Raises:
            PredictionError: for another shape, or a cost that is not above 0.
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
        met: set[Members] = set()
        for regard in (None, prices):
            met |= set(forward_sets(self.optima, regard))
            met |= set(backward_sets(self.optima, everyone, regard))
        met |= {(model,) for model in everyone}
        used = {tuple(np.flatnonzero(self.optima.weights(members)).tolist()) for members in met}
        # Of sets of one cost the best comes first; sums may differ in their last digits.
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
        self, members: Members, costs: Array | None = None, *, proven: bool = False
    ) -> ModelSet:
        """A set with its weights and figures."""
        return ModelSet(
            members=members,
            weights=self.optima.weights(members),
            kl=self.optima.kl(members),
            nested=float(np.average(self._nested_rows(members), weights=self.rows.weights)),
            cost=float(len(members) if costs is None else costs[list(members)].sum()),
            proven=proven,
        )

    def _shrink(self, found: Members, most: float) -> tuple[Members, bool]:
        """A smallest set within ``most`` where the sets to be tried are few enough."""
        if len(found) == 1:
            return found, True
        everyone = range(self.optima.n_models)
        # A model that all others together cannot replace is in every set within it.
        needed = {
            model
            for model in found
            if self.optima.kl(tuple(other for other in everyone if other != model)) > most
        }
        free = [model for model in everyone if model not in needed]
        while len(found) > max(len(needed), 1):
            more = len(found) - 1 - len(needed)
            if math.comb(len(free), more) > _MOST_SUBSETS:
                return found, False
            tried = [(*needed, *added) for added in itertools.combinations(free, more)]
            best = min(tried, key=self.optima.kl)
            if self.optima.kl(best) > most:
                return found, True
            found = best
        return found, True

    def _nested_rows(self, members: Members) -> Array:
        models = self.rows.models[list(members)]
        rows, splits = self.rows, (self.n_splits, self.seed)
        nested = nested_blend(rows.targets, models, self._owners, *splits, rows.weights)
        return row_sums(rows.targets, nested.probabilities)

    @property
    def _owners(self) -> NDArray[Any]:
        return self.rows.owners("a comparison of sets")
