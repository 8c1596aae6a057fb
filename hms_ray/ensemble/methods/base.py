"""What every pool is: fitted on arrays, applied to arrays, kept as plain data.

A pool combines the probabilities of M models into one distribution a row. Row weights
say which rows count in a fit, so that fitting for a vote tier is the same pool with
the weights of ``tier_weights``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hms_ray.config.space import Objective
from hms_ray.ensemble.simplex import check_models
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import OBJECTIVES, Array, check_distributions, check_row_weights


class FittedPool(Protocol):
    """A combination that needs nothing but the models' probabilities."""

    def predict(self, probabilities: ArrayLike) -> Array:
        """The combined distributions.

        Args:
            probabilities: (M, n, 6), the models in the order of the fit.

        Returns:
            (n, 6) float64, rows sum to 1.

        Raises:
            PredictionError: for another number of models, or a model that gives no
                distributions.
        """
        ...

    def to_json(self) -> dict[str, Any]:
        """Plain data from which ``fitted_from_json`` makes the pool again."""
        ...


class Pool(Protocol):
    """A named method with its settings."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    def fit(
        self,
        targets: ArrayLike,
        probabilities: ArrayLike,
        row_weights: ArrayLike | None = None,
        patients: ArrayLike | None = None,
    ) -> FittedPool:
        """Fits the combination on the rows given and on nothing else.

        Args:
            targets: (n, 6) vote shares.
            probabilities: (M, n, 6) predictions of M models on the same rows.
            row_weights: (n,) weights of the rows, at least 0 and not all 0; a mask of
                booleans picks rows. All rows count the same where absent.
            patients: (n,) patient of each row; only pools that choose something by
                validation inside the fit need it.

        Raises:
            PredictionError: where a side is no distribution, the shapes differ, the
                row weights are invalid, or patients are needed and are not there.
        """
        ...


@dataclass(frozen=True)
class Rows:
    """Checked rows that count in a fit, and what was fitted on them.

    Attributes:
        targets: (n, 6) float64.
        models: (M, n, 6), the dtype that was given.
        weights: (n,) float64, above 0.
        patients: (n,) or None.
    """

    targets: Array
    models: NDArray[np.floating]
    weights: Array
    patients: NDArray[Any] | None
    _fits: dict[int, tuple[Pool, FittedPool]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def fitted(self, pool: Pool) -> FittedPool:
        """A pool's fit on these rows, made once however many pools have it as a member.

        Pools are told apart by identity: their settings may be lists or arrays.
        """
        if id(pool) not in self._fits:
            made = (
                pool.fit_rows(self)
                if isinstance(pool, CheckedPool)
                else pool.fit(self.targets, self.models, self.weights, self.patients)
            )
            # The pool is kept too, for another one may get the id of one that is gone.
            self._fits[id(pool)] = (pool, made)
        return self._fits[id(pool)][1]

    def part(self, rows: NDArray[np.intp]) -> Rows:
        """Some of the rows, with nothing fitted on them."""
        owners = None if self.patients is None else self.patients[rows]
        return Rows(self.targets[rows], self.models[:, rows], self.weights[rows], owners)

    def owners(self, name: str) -> NDArray[Any]:
        """The patients, of which there are two at least.

        Raises:
            PredictionError: naming the pool that needs them.
        """
        if self.patients is None:
            raise PredictionError(
                f"{name} needs the patient of each row: it validates inside the fit", got="none"
            )
        if len(np.unique(self.patients)) < 2:
            raise PredictionError(
                f"{name} needs rows of at least two patients", got="rows of one patient only"
            )
        return self.patients


Fitted = TypeVar("Fitted", bound=FittedPool, covariant=True)


class CheckedPool(ABC, Generic[Fitted]):
    """A pool that is given rows only after they were checked."""

    @property
    def least_patients(self) -> int:
        """Patients whose rows a fit needs; two and more where it validates inside."""
        return 1

    @abstractmethod
    def fit_rows(self, rows: Rows) -> Fitted:
        """Fits the combination on rows that were checked before.

        Raises:
            PredictionError: where patients are needed and are not there.
        """

    def fit(
        self,
        targets: ArrayLike,
        probabilities: ArrayLike,
        row_weights: ArrayLike | None = None,
        patients: ArrayLike | None = None,
    ) -> Fitted:
        """As ``Pool.fit``."""
        return self.fit_rows(checked_rows(targets, probabilities, row_weights, patients))


def least_patients(pool: Pool) -> int:
    """Patients whose rows a fit of any pool needs; 1 where it does not say."""
    return pool.least_patients if isinstance(pool, CheckedPool) else 1


def checked_rows(
    targets: ArrayLike,
    probabilities: ArrayLike,
    row_weights: ArrayLike | None,
    patients: ArrayLike | None,
) -> Rows:
    """The rows of positive weight, after checking all of them; errors as ``Pool.fit``."""
    checked = check_distributions(targets, "targets")
    models = check_models(probabilities, len(checked))
    weights = check_row_weights(row_weights, len(checked))
    owners = None if patients is None else np.asarray(patients)
    if owners is not None and owners.shape != weights.shape:
        raise PredictionError(
            f"there must be one patient for each of {len(checked)} rows", got=str(owners.shape)
        )
    counted = weights > 0
    if counted.all():
        return Rows(checked, models, weights, owners)
    owners = None if owners is None else owners[counted]
    return Rows(checked[counted], models[:, counted], weights[counted], owners)


def checked_models(probabilities: ArrayLike, n_models: int) -> NDArray[np.floating]:
    """The (M, n, 6) predictions for a pool of so many models; errors as ``predict``."""
    stack = np.asarray(probabilities)
    if stack.ndim != 3 or len(stack) != n_models:
        raise PredictionError(
            f"this pool combines predictions of shape ({n_models}, rows, 6)", got=str(stack.shape)
        )
    return check_models(stack, stack.shape[1])


def described_array(data: Mapping[str, Any], name: str, *shape: int | None) -> Array:
    """An array of a fitted pool's description; None stands for any size.

    Raises:
        PredictionError: for another shape and for numbers that are not finite.
        KeyError: where it is not there.
        TypeError: where it is not made of numbers; ``ValueError`` likewise.
    """
    array = np.array(data[name], dtype=np.float64)
    sizes = zip(array.shape, shape, strict=False)
    fits = array.ndim == len(shape) and all(want in (None, size) for size, want in sizes)
    if not fits or not np.isfinite(array).all():
        told = ", ".join("models" if size is None else str(size) for size in shape)
        raise PredictionError(
            f"{name} of a fitted pool must be finite numbers of shape ({told})",
            got=str(array.shape) if not fits else "a number that is not finite",
        )
    return array


def tier_weights(total_votes: ArrayLike, objective: Objective) -> Array:
    """Row weights that fit a pool for an objective: 1 on its rows, 0 elsewhere.

    Args:
        total_votes: (n,) votes of each row.
        objective: ``kl_all``, ``kl_4`` (at least 4 votes) or ``kl_10``.
    """
    votes = np.asarray(total_votes, np.float64)
    return (votes >= OBJECTIVES[objective]).astype(np.float64)
