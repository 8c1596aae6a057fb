"""Nested KL of choosing the best of many predictions, from sums by patient alone.

The lowest of many KLs is too low an estimate, because the same rows chose it. Here each
part of the patients is scored by the prediction that is best on the other patients. It is
``cross_validation`` with the method ``best_single``, for predictions too many to hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import Interval, PatientSums, patient_groups

N_SPLITS: Final = 5
"""Parts of the patients."""
N_REPEATS: Final = 5
"""Partitions of the patients, with a seed each."""


@dataclass(frozen=True)
class NestedChoice:
    """The estimate of a choice.

    Attributes:
        best: position of the prediction with the lowest mean on all rows.
        in_sample: that mean, on the rows that chose it.
        nested: mean over rows, chosen on other patients, averaged over the seeds.
        recalibrated: the same choices scored by ``recalibrated``; None without them.
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
    recalibrated: float | None = None

    @property
    def optimism(self) -> float:
        """Nested minus in-sample mean."""
        return self.nested.mean - self.in_sample


def nested_choice(
    scores: PatientSums,
    patients: ArrayLike,
    scored: ArrayLike | None = None,
    *,
    seeds: Sequence[int] = range(N_REPEATS),
    n_splits: int = N_SPLITS,
    recalibrated: PatientSums | None = None,
) -> NestedChoice:
    """Chooses the best of C predictions on some patients and scores it on the others.

    The interval treats patients as independent and the choices as given, as all nested
    intervals here do. Each choice sees ``1 - 1 / n_splits`` of the patients, so the mean is
    slightly too high for the choice on all of them.

    Args:
        scores: row KLs of C predictions, summed by patient over the scored rows.
        patients: (n,) patient of each row.
        scored: (n,) which rows are scored (default: all). The others take part in the
            partitions, so that these are those of ``cross_validate``.
        seeds: R partitions of the patients.
        n_splits: parts of each, at most as many as there are patients with scored rows.
        recalibrated: row KLs of the same predictions after recalibration, which choose nothing.

    Raises:
        PredictionError: fewer than two patients have scored rows, or the sums are of others.
    """
    owners, sums, sizes = np.asarray(patients), scores.sums, scores.sizes
    counted = np.ones(len(owners), bool) if scored is None else np.asarray(scored, bool)
    known, first = np.unique(owners[counted], return_index=True)
    if len(known) < 2 or len(known) != len(sizes):
        raise PredictionError(
            "a nested estimate of a choice needs scored rows of at least two patients",
            got=f"{len(known)} patient(s), and sums of {len(sizes)}",
        )
    n_splits = min(n_splits, len(known))
    found, chosen = np.empty((len(seeds), len(known))), Counter[int]()
    corrected = np.empty_like(found)
    for repeat, seed in enumerate(seeds):
        split = patient_groups(owners, n_splits, seed, counted)[counted][first]
        for number in np.unique(split):
            held_out = split == number
            # The same rows for all: the lowest sum is the lowest mean.
            winner = int(np.argmin(sums @ ~held_out))
            found[repeat, held_out] = sums[winner, held_out]
            if recalibrated is not None:
                corrected[repeat, held_out] = recalibrated.sums[winner, held_out]
            chosen[winner] += 1
    means = scores.means
    best = int(np.argmin(means))
    return NestedChoice(
        best=best,
        in_sample=float(means[best]),
        nested=PatientSums(found.mean(axis=0)[None], sizes).intervals()[0],
        by_seed=tuple((found.sum(axis=1) / sizes.sum()).tolist()),
        times_chosen=dict(chosen.most_common()),
        seeds=tuple(seeds),
        n_splits=n_splits,
        recalibrated=None
        if recalibrated is None
        else float(corrected.sum(axis=1).mean() / sizes.sum()),
    )
