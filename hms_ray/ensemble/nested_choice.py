"""Nested KL of choosing the best of many predictions, from sums by patient alone.

The lowest of many KLs is too low an estimate, because the same rows chose it. Here each
part of the patients is scored by the prediction that is best on the other patients. It is
``cross_validation`` with the method ``best_single``, for predictions too many to hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hms_ray.ensemble.report import N_REPEATS, N_SPLITS
from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import Interval, PatientSums, patient_groups


@dataclass(frozen=True)
class NestedChoice:
    """The estimate of a choice.

    Attributes:
        best: position of the prediction with the lowest mean on all rows.
        in_sample: that mean, on the rows that chose it.
        nested: mean over rows, chosen on other patients, averaged over the seeds.
        by_seed: (R,) the mean for each seed.
        times_chosen: position -> parts that it scored, of all seeds, most frequent first.
        seeds: of the partitions of the patients.
        n_splits: parts of each partition.
    """

    best: int
    in_sample: float
    nested: Interval
    by_seed: tuple[float, ...]
    times_chosen: dict[int, int]
    seeds: tuple[int, ...]
    n_splits: int

    @property
    def optimism(self) -> float:
        """Nested minus in-sample mean."""
        return self.nested.mean - self.in_sample


def nested_choice(
    scores: PatientSums, seeds: Sequence[int] = range(N_REPEATS), n_splits: int = N_SPLITS
) -> NestedChoice:
    """Chooses the best of C predictions on some patients and scores it on the others.

    The interval treats patients as independent and the choices as given, as all nested
    intervals here do. Each choice sees ``1 - 1 / n_splits`` of the patients, so the mean is
    slightly too high for the choice on all of them.

    Args:
        scores: row KLs of C predictions, summed by patient.
        seeds: R partitions of the patients.
        n_splits: parts of each, at most as many as there are patients.

    Raises:
        PredictionError: fewer than two patients.
    """
    sums, sizes = scores.sums, scores.sizes
    n_patients = len(sizes)
    if n_patients < 2:
        raise PredictionError(
            "a nested estimate of a choice needs rows of at least two patients", got=n_patients
        )
    n_splits = min(n_splits, n_patients)
    scored, chosen = np.empty((len(seeds), n_patients)), Counter[int]()
    # Rows of a patient are neighbours here; the first one stands for all.
    patients = np.repeat(np.arange(n_patients), sizes.astype(np.int64))
    first = np.searchsorted(patients, np.arange(n_patients))
    for repeat, seed in enumerate(seeds):
        split = patient_groups(patients, n_splits, seed)[first]
        for number in range(n_splits):
            held_out = split == number
            # The same rows for all: the lowest sum is the lowest mean.
            winner = int(np.argmin(sums @ ~held_out))
            scored[repeat, held_out] = sums[winner, held_out]
            chosen[winner] += 1
    means = scores.means
    best = int(np.argmin(means))
    return NestedChoice(
        best=best,
        in_sample=float(means[best]),
        nested=PatientSums(scored.mean(axis=0)[None], sizes).intervals()[0],
        by_seed=tuple((scored.sum(axis=1) / sizes.sum()).tolist()),
        times_chosen=dict(chosen.most_common()),
        seeds=tuple(seeds),
        n_splits=n_splits,
    )
