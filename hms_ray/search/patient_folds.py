"""Row scores of a study, summed by patient.

Since all rows of a patient lie in one fold, these sums hold all that fold means, paired
differences and patient-clustered variances need. Every mean is over rows, so that a fold counts
by its number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hms_ray.evaluate.metric import Array


@dataclass(frozen=True)
class PatientFolds:
    """Rows of the objective by patient; patients sorted by fold, then by number.

    Attributes:
        order: (n,) position of each counted row's patient.
        counted: (N,) which of all rows count.
        sizes: (G,) counted rows of each patient.
        folds: (G,) fold of each patient.
        n_folds: folds of the study, also those without a counted row.
    """

    order: NDArray[np.int64]
    counted: NDArray[np.bool_]
    sizes: Array
    folds: NDArray[np.int64]
    n_folds: int

    @classmethod
    def of(cls, patients: ArrayLike, folds: ArrayLike, counted: ArrayLike) -> PatientFolds:
        """From the patient (N,) and fold (N,) of all rows, and which of them (N,) count."""
        all_folds, which = np.asarray(folds, np.int64), np.asarray(counted, bool)
        pairs = np.stack([all_folds[which], np.asarray(patients)[which]])
        known, order, sizes = np.unique(pairs, axis=1, return_inverse=True, return_counts=True)
        return cls(order.ravel(), which, sizes.astype(np.float64), known[0], all_folds.max() + 1)

    def sums(self, row_scores: Array) -> Array:
        """(G,) summed scores of each patient, from the scores (N,) of all rows."""
        scores = row_scores[self.counted]
        found: Array = np.bincount(self.order, scores, len(self.sizes)).astype(np.float64)
        return found

    @cached_property
    def rows(self) -> Array:
        """(K,) counted rows of each fold."""
        found: Array = np.bincount(self.folds, self.sizes, self.n_folds).astype(np.float64)
        return found

    @cached_property
    def _in_fold(self) -> Array:
        """(G, K) 1 for each patient's fold."""
        indicator: Array = (self.folds[:, None] == np.arange(self.n_folds)).astype(np.float64)
        return indicator

    def fold_sums(self, sums: Array) -> Array:
        """(..., K) summed scores of each fold, from those of patients (..., G)."""
        found: Array = sums @ self._in_fold
        return found

    def fold_means(self, sums: Array) -> Array:
        """(..., K) mean score of each fold; NaN without a counted row."""
        with np.errstate(invalid="ignore", divide="ignore"):
            means: Array = self.fold_sums(sums) / self.rows
        return means

    def running_mean(self, sums: Array, n_folds: int) -> Array:
        """(...) mean score over the rows of the first folds."""
        rows = self.rows[:n_folds].sum()
        running: Array = self.fold_sums(sums)[..., :n_folds].sum(axis=-1) / rows
        return running

    def level_of_look(self, n_folds: int, level: float) -> float:
        """Level of the look after some folds: the levels of all looks sum to ``level``.

        There is no look after the last fold. Each has ``level * rows of its fold / rows of
        all folds but the last``.
        """
        return float(level * self.rows[n_folds - 1] / max(self.rows[:-1].sum(), 1.0))
