"""The interface of ensemble methods: fitted on arrays, applied to arrays, stored as JSON.

To write another method, subclass ``Method``: give it a ``name``, implement ``fit_rows``
(checked rows of positive weight in, a ``FittedMethod`` out), and raise ``min_patients`` if
the fit validates on held-out patients. A fitted method predicts from the models'
probabilities alone. Add the method to ``registry.all_methods`` and a new ``FittedMethod``
to ``combined.fitted_from_json``; the contract tests then cover it.

Row weights select the rows of a fit: a method is fitted for a vote tier by passing
``tier_weights``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import TypeAdapter

from hms_ray.config.space import Objective
from hms_ray.ensemble.simplex import check_models
from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import patient_groups
from hms_ray.evaluate.metric import OBJECTIVES, Array, check_distributions, check_row_weights


class FittedMethod(ABC):
    """Combines the probabilities of M models into one distribution per row.

    Implementations are dataclasses whose fields pydantic can read from JSON.

    Attributes:
        form: name of the implementation in JSON.
    """

    form: ClassVar[str]

    @abstractmethod
    def predict(self, probabilities: ArrayLike) -> Array:
        """The combined distributions.

        Args:
            probabilities: (M, n, 6), the models in the order of the fit.

        Returns:
            (n, 6) float64, rows sum to 1.

        Raises:
            PredictionError: the number of models differs from the fit's, or a model's
                rows are not distributions.
        """

    def to_json(self) -> dict[str, Any]:
        """JSON data from which ``fitted_from_json`` restores the fitted method."""
        return {"form": self.form, **TypeAdapter(type(self)).dump_python(self)}


class Method(ABC):
    """A way to combine models, with its settings."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in tables and in ``--method``."""

    @property
    def min_patients(self) -> int:
        """Fewest patients whose rows a fit needs; 2 or more if it validates inside."""
        return 1

    @abstractmethod
    def fit_rows(self, rows: FitRows) -> FittedMethod:
        """Fits the combination on checked rows and on nothing else.

        Raises:
            PredictionError: the fit needs patients, and they are missing or too few.
        """

    def fit(
        self,
        targets: ArrayLike,
        probabilities: ArrayLike,
        row_weights: ArrayLike | None = None,
        patients: ArrayLike | None = None,
    ) -> FittedMethod:
        """Checks the rows and fits the combination on those of positive weight.

        Args:
            targets: (n, 6) vote shares.
            probabilities: (M, n, 6) predictions of M models on the same rows.
            row_weights: (n,) at least 0, not all 0; a boolean mask selects rows
                (default: equal weights).
            patients: (n,) patient of each row; required if ``min_patients`` is above 1.

        Raises:
            PredictionError: targets or predictions are not distributions, shapes differ,
                row weights are invalid, or patients are missing or too few.
        """
        return self.fit_rows(checked_rows(targets, probabilities, row_weights, patients))


@dataclass(frozen=True)
class FitRows:
    """Checked rows of positive weight, with a cache of the methods fitted on them.

    Attributes:
        targets: (n, 6) float64.
        models: (M, n, 6), dtype as given.
        weights: (n,) float64, above 0.
        patients: (n,) or None.
    """

    targets: Array
    models: NDArray[np.floating]
    weights: Array
    patients: NDArray[Any] | None
    _fits: dict[int, tuple[Method, FittedMethod]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def fit(self, method: Method) -> FittedMethod:
        """The method fitted on these rows; fitted once, even if several methods contain it.

        Methods are compared by identity, because their settings may be lists or arrays.
        """
        if id(method) not in self._fits:
            # The method is stored too: a later one may reuse the id of a deleted one.
            self._fits[id(method)] = (method, method.fit_rows(self))
        return self._fits[id(method)][1]

    def take(self, rows: NDArray[np.intp]) -> FitRows:
        """A subset of the rows, with an empty cache."""
        patients = None if self.patients is None else self.patients[rows]
        return FitRows(self.targets[rows], self.models[:, rows], self.weights[rows], patients)

    def patients_for(self, name: str) -> NDArray[Any]:
        """The patients, at least two different ones.

        Raises:
            PredictionError: patients are missing or only one; the rule starts with ``name``.
        """
        if self.patients is None:
            raise PredictionError(
                f"{name} needs the patient of each row: it validates on held-out patients",
                got="no patients",
            )
        if len(np.unique(self.patients)) < 2:
            raise PredictionError(
                f"{name} needs rows of at least two patients", got="rows of one patient"
            )
        return self.patients


def nested_predictions(
    methods: Sequence[Method], rows: FitRows, n_splits: int, seed: int, name: str
) -> Array:
    """Out-of-sample predictions of every method: each patient's rows by other patients' fits.

    Args:
        methods: K methods.
        rows: with patients, at least two.
        n_splits: splits by patient, at most as many as there are patients.
        seed: of the splits.
        name: what needs the patients, for error messages.

    Returns:
        (K, n, 6) float64.
    """
    patients = rows.patients_for(name)
    n_splits = min(n_splits, len(np.unique(patients)))
    split = patient_groups(patients, n_splits, seed, rows.weights)
    predicted = np.empty((len(methods), *rows.targets.shape))
    for part in range(n_splits):
        held_out, training = split == part, rows.take(np.flatnonzero(split != part))
        for number, method in enumerate(methods):
            predicted[number, held_out] = training.fit(method).predict(rows.models[:, held_out])
    return predicted


def checked_rows(
    targets: ArrayLike,
    probabilities: ArrayLike,
    row_weights: ArrayLike | None,
    patients: ArrayLike | None,
) -> FitRows:
    """Checks all rows and returns those of positive weight; arguments as ``Method.fit``."""
    checked = check_distributions(targets, "targets")
    models = check_models(probabilities, len(checked))
    weights = check_row_weights(row_weights, len(checked))
    owners = None if patients is None else np.asarray(patients)
    if owners is not None and owners.shape != weights.shape:
        raise PredictionError(
            f"there must be one patient for each of {len(checked)} rows", got=str(owners.shape)
        )
    rows = FitRows(checked, models, weights, owners)
    counted = np.flatnonzero(weights)
    return rows if len(counted) == len(weights) else rows.take(counted)


def checked_models(probabilities: ArrayLike, n_models: int) -> NDArray[np.floating]:
    """The (M, n, 6) predictions, after checking the number of models; see ``predict``."""
    stack = np.asarray(probabilities)
    if stack.ndim != 3 or len(stack) != n_models:
        raise PredictionError(
            f"predictions must have the shape ({n_models}, rows, 6), one per fitted model",
            got=str(stack.shape),
        )
    return check_models(stack, stack.shape[1])


def tier_weights(total_votes: ArrayLike, objective: Objective) -> Array:
    """Row weights that fit a method for an objective: 1 on its rows, 0 elsewhere.

    Args:
        total_votes: (n,) votes of each row.
        objective: ``kl_all``, ``kl_4`` (at least 4 votes) or ``kl_10``.
    """
    votes = np.asarray(total_votes, np.float64)
    return (votes >= OBJECTIVES[objective]).astype(np.float64)
