"""Methods made of methods: recalibrated, averaged and stacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from hms_ray.ensemble.methods.base import FitRows, FittedMethod, Method, nested_predictions
from hms_ray.ensemble.simplex import solved_weights
from hms_ray.evaluate.calibration import Recalibration, fit_recalibration
from hms_ray.evaluate.metric import Array

_SPLITS: Final = 5


@dataclass(frozen=True)
class FittedRecalibrated:
    """A fitted method whose class shares and confidence are corrected.

    Attributes:
        member: the method.
        recalibration: its correction.
    """

    member: FittedMethod
    recalibration: Recalibration

    def predict(self, probabilities: ArrayLike) -> Array:
        """See ``FittedMethod.predict``."""
        return self.recalibration.apply(self.member.predict(probabilities))

    def to_json(self) -> dict[str, Any]:
        """See ``FittedMethod.to_json``."""
        return {
            "form": "recalibrated",
            "member": self.member.to_json(),
            "biases": self.recalibration.biases.tolist(),
            "temperature": self.recalibration.temperature,
        }


@dataclass(frozen=True)
class Recalibrated(Method):
    """A method, then class biases and a temperature fitted on its own blend."""

    member: Method

    @property
    def name(self) -> str:
        """The member's name and ``recalibrated``."""
        return f"{self.member.name}_recalibrated"

    @property
    def min_patients(self) -> int:
        """The member's."""
        return self.member.min_patients

    def fit_rows(self, rows: FitRows) -> FittedRecalibrated:
        """See ``Method.fit_rows``."""
        member = rows.fit(self.member)
        blended = member.predict(rows.models)
        return FittedRecalibrated(member, fit_recalibration(rows.targets, blended, rows.weights))


@dataclass(frozen=True)
class FittedAverage:
    """A weighted mean of the predictions of fitted methods.

    Attributes:
        members: K methods.
        weights: (K,) float64, at least 0, sum 1; members of weight 0 are not computed.
    """

    members: tuple[FittedMethod, ...]
    weights: Array

    def predict(self, probabilities: ArrayLike) -> Array:
        """See ``FittedMethod.predict``."""
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
        """See ``FittedMethod.to_json``."""
        return {
            "form": "average",
            "members": [member.to_json() for member in self.members],
            "weights": self.weights.tolist(),
        }


@dataclass(frozen=True)
class Average(Method):
    """The mean of the predictions of several methods, each fitted on the same rows.

    KL is convex, so the average's KL is at most the mean of the members' KL.
    """

    members: Sequence[Method]
    name: str = "average"

    @property
    def min_patients(self) -> int:
        """The most that a member needs."""
        return max(member.min_patients for member in self.members)

    def fit_rows(self, rows: FitRows) -> FittedAverage:
        """See ``Method.fit_rows``."""
        members = tuple(rows.fit(member) for member in self.members)
        return FittedAverage(members, np.full(len(members), 1 / len(members)))


@dataclass(frozen=True)
class Stacked(Method):
    """Methods weighted by their predictions for patients that they were not fitted on.

    The super learner (van der Laan, Polley and Hubbard, Statistical Applications in
    Genetics and Molecular Biology 6, 2007): simplex weights of the members' nested
    predictions; then every member is fitted on all rows. Costs ``n_splits + 1`` fits per
    member.

    Attributes:
        members: the methods.
        n_splits: validation splits by patient, at most as many as there are patients.
        seed: of the splits.
    """

    members: Sequence[Method]
    n_splits: int = _SPLITS
    seed: int = 0
    name: str = "stacked"

    @property
    def min_patients(self) -> int:
        """One more than the members need, to validate them on."""
        return 1 + max(member.min_patients for member in self.members)

    def fit_rows(self, rows: FitRows) -> FittedAverage:
        """See ``Method.fit_rows``; patients are required."""
        validated = nested_predictions(self.members, rows, self.n_splits, self.seed, self.name)
        weights = solved_weights(rows.targets, validated, rows.weights).weights
        return FittedAverage(tuple(rows.fit(member) for member in self.members), weights)
