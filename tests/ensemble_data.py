"""Simulated votes of clustered patients, and models that see the truth through noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hms_ray.ensemble.cross_validation import (
    Candidate,
    EnsembleData,
    checked_candidates,
    checked_data,
    cross_validate,
    splits_for,
)
from hms_ray.ensemble.methods.arithmetic import Simplex
from hms_ray.ensemble.methods.base import Method, checked_rows, nested_predictions
from hms_ray.ensemble.selection import score_candidates
from hms_ray.ensemble.selection_result import Selection
from hms_ray.evaluate.intervals import patient_groups
from hms_ray.evaluate.metric import kl_rows


class EnsembleSample(NamedTuple):
    """Targets (n, 6), models (M, n, 6), patients (n,) and votes (n,)."""

    targets: np.ndarray
    models: np.ndarray
    patients: np.ndarray
    votes: np.ndarray

    def rows(self, chosen: np.ndarray) -> EnsembleSample:
        """A subset of the rows."""
        return EnsembleSample(
            self.targets[chosen], self.models[:, chosen], self.patients[chosen], self.votes[chosen]
        )

    def data(self) -> EnsembleData:
        return checked_data(*self)


def softmax(scores: np.ndarray) -> np.ndarray:
    odds = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True))


def ensemble_sample(
    n_models: int = 5,
    n_patients: int = 40,
    seed: int = 0,
    sharpness: float = 1.0,
    alike: bool = False,
) -> EnsembleSample:
    """``sharpness`` above 1 makes every model overconfident; ``alike``: equally good."""
    generator = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), generator.integers(2, 15, size=n_patients))
    n_rows = len(patients)
    truth = 1.5 * generator.normal(size=(n_patients, 6))[patients]
    truth = truth + generator.normal(size=(n_rows, 6))
    noise = generator.uniform(0.5, 1.5, size=(n_models, 1, 1))
    if alike:
        noise = np.ones_like(noise)
    seen = truth + noise * generator.normal(size=(n_models, n_rows, 6))
    votes = generator.choice([1, 3, 5, 12, 15], size=n_rows)
    drawn = generator.multinomial(votes, softmax(truth))
    return EnsembleSample(drawn / votes[:, None], softmax(sharpness * seen), patients, votes)


def nested_simplex(
    targets: np.ndarray,
    models: np.ndarray,
    patients: np.ndarray,
    n_splits: int = 5,
    seed: int = 0,
    row_weights: np.ndarray | None = None,
) -> np.ndarray:
    """Nested predictions (n, 6) of exact simplex weights."""
    rows = checked_rows(targets, models, row_weights, patients)
    (predicted,) = nested_predictions([Simplex()], rows, n_splits, seed, "a test")
    return predicted


def select(
    sample: EnsembleSample,
    candidates: Sequence[Candidate | Method],
    objective: Any = "kl_all",
    reference: str = "simplex",
    seeds: Sequence[int] = (0, 1),
    n_splits: int = 5,
) -> Selection:
    """Scores candidates by nested cross-validation and selects one."""
    data, entries = sample.data(), checked_candidates(candidates)
    n_splits = splits_for(data, entries, objective, n_splits)
    scores = cross_validate(data, entries, objective, seeds, n_splits).scores
    return score_candidates(
        data,
        entries,
        scores,
        objective,
        reference=reference,
        alternatives={},
        seeds=seeds,
        n_splits=n_splits,
    )


def nested_by_hand(
    sample: EnsembleSample, method: Method, counted: np.ndarray, seed: int
) -> np.ndarray:
    """KL (n,) of each row under the method fitted on other patients' counted rows."""
    split = patient_groups(sample.patients, 5, seed, counted)
    rows = np.empty(len(split))
    for number in range(5):
        inside, training = split == number, sample.rows((split != number) & counted)
        fitted = method.fit(training.targets, training.models, None, training.patients)
        rows[inside] = kl_rows(sample.targets[inside], fitted.predict(sample.models[:, inside]))
    return rows
