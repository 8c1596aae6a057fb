"""Pools made of pools: averages, stacks, a recalibrated mean, and shrunk weights.

What is chosen inside a fit (the weights of a stack, the strength of a shrinkage) is
chosen by validation on other patients than the parts were fitted on, within the rows
that the fit was given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hms_ray.ensemble.methods.base import (
    CheckedPool,
    FittedPool,
    Pool,
    Rows,
    least_patients,
)
from hms_ray.ensemble.simplex import solved_weights
from hms_ray.evaluate.calibration import Recalibration, fit_recalibration
from hms_ray.evaluate.intervals import patient_groups
from hms_ray.evaluate.metric import Array

_SPLITS: Final = 5


@dataclass(frozen=True)
class FittedRecalibrated:
    """A pool whose class shares and confidence are corrected.

    Attributes:
        member: the pool.
        recalibration: its correction.
    """

    member: FittedPool
    recalibration: Recalibration

    def predict(self, probabilities: ArrayLike) -> Array:
        """As ``FittedPool.predict``."""
        return self.recalibration.apply(self.member.predict(probabilities))

    def to_json(self) -> dict[str, Any]:
        """As ``FittedPool.to_json``."""
        return {
            "form": "recalibrated",
            "member": self.member.to_json(),
            "biases": self.recalibration.biases.tolist(),
            "temperature": self.recalibration.temperature,
        }


@dataclass(frozen=True)
class Recalibrated(CheckedPool[FittedRecalibrated]):
    """A pool, then class biases and a temperature fitted on its own blend."""

    member: Pool

    @property
    def name(self) -> str:
        """The member's name and ``recalibrated``."""
        return f"{self.member.name}_recalibrated"

    @property
    def least_patients(self) -> int:
        """As the member's."""
        return least_patients(self.member)

    def fit_rows(self, rows: Rows) -> FittedRecalibrated:
        """As ``CheckedPool.fit_rows``."""
        member = rows.fitted(self.member)
        blended = member.predict(rows.models)
        return FittedRecalibrated(member, fit_recalibration(rows.targets, blended, rows.weights))


@dataclass(frozen=True)
class FittedAverage:
    """A weighted mean of what pools predict.

    Attributes:
        members: the pools.
        weights: (K,) float64, at least 0, sum 1; pools of weight 0 are not asked.
    """

    members: tuple[FittedPool, ...]
    weights: Array

    def predict(self, probabilities: ArrayLike) -> Array:
        """As ``FittedPool.predict``."""
        blended: Array = np.sum(
            [
                weight * member.predict(probabilities)
                for member, weight in zip(self.members, self.weights, strict=True)
                if weight
            ],
            axis=0,
            dtype=np.float64,
        )
        return blended

    def to_json(self) -> dict[str, Any]:
        """As ``FittedPool.to_json``."""
        return {
            "form": "average",
            "members": [member.to_json() for member in self.members],
            "weights": self.weights.tolist(),
        }


@dataclass(frozen=True)
class Average(CheckedPool[FittedAverage]):
    """The mean of what several pools predict, each fitted on the same rows.

    KL is convex, so it is at most the mean of the pools' own KL.
    """

    name: str
    members: Sequence[Pool]

    @property
    def least_patients(self) -> int:
        """As the members'."""
        return max(map(least_patients, self.members))

    def fit_rows(self, rows: Rows) -> FittedAverage:
        """As ``CheckedPool.fit_rows``."""
        members = tuple(rows.fitted(member) for member in self.members)
        return FittedAverage(members, np.full(len(members), 1 / len(members)))


@dataclass(frozen=True)
class Stacked(CheckedPool[FittedAverage]):
    """Pools weighted by what they predict for patients that they were not fitted on.

    The super learner (van der Laan, Polley and Hubbard, Statistical Applications in
    Genetics and Molecular Biology 6, 2007): simplex weights of the members' validated
    predictions; then every member is fitted on all rows. Costs six fits a member.

    Attributes:
        name: what tables call it.
        members: the pools.
        n_splits: validation splits by patient; as many as there are patients, if fewer.
        seed: of the splits.
    """

    name: str
    members: Sequence[Pool]
    n_splits: int = _SPLITS
    seed: int = 0

    @property
    def least_patients(self) -> int:
        """One more than the members', which are validated on others."""
        return 1 + max(map(least_patients, self.members))

    def fit_rows(self, rows: Rows) -> FittedAverage:
        """As ``CheckedPool.fit_rows``; patients are needed."""
        validated = np.empty((len(self.members), *rows.targets.shape))

        def predict(training: Rows, held: Rows, inside: NDArray[np.intp]) -> None:
            for number, member in enumerate(self.members):
                validated[number, inside] = training.fitted(member).predict(held.models)

        _validate(rows, self.name, self.n_splits, self.seed, predict)
        weights = solved_weights(rows.targets, validated, rows.weights).weights
        return FittedAverage(tuple(rows.fitted(member) for member in self.members), weights)


def _validate(
    rows: Rows,
    name: str,
    n_splits: int,
    seed: int,
    use: Callable[[Rows, Rows, NDArray[np.intp]], None],
) -> None:
    """Hands ``use`` the rows of other patients, the rows inside, and the places of these."""
    owners = rows.owners(name)
    n_splits = min(n_splits, len(np.unique(owners)))
    split = patient_groups(owners, n_splits, seed, rows.weights)
    for number in range(n_splits):
        inside, outside = np.flatnonzero(split == number), np.flatnonzero(split != number)
        use(rows.part(outside), rows.part(inside), inside)
