"""Variance of a difference between steps that comes from the seeds of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hms_ray.evaluate.intervals import Interval
from hms_ray.evaluate.metric import Array


@dataclass(frozen=True)
class SeedMeans:
    """Mean KL of each step in runs on the same rows that differ in the training seed.

    Attributes:
        n_rows: rows of a run.
        raw: (R, S) of R runs and S steps, nats, as predicted.
        recalibrated: the same after recalibration; None with one patient.
    """

    n_rows: int
    raw: Array
    recalibrated: Array | None


def seed_variance(
    interval: Interval, means: Sequence[tuple[int, Array]]
) -> tuple[float, float] | None:
    """Variance of a mean difference over patients and seeds, and its degrees of freedom.

    With V the patient-clustered variance of the difference of seed means over G patients,
    and s_d^2 the variance of the R_d differences of data set d, which has the share w_d of
    all rows: ``V + sum_d w_d^2 s_d^2 / R_d``. Degrees of freedom as by Welch and
    Satterthwaite (Biometrics Bulletin 2, 1946), with G - 1 and R_d - 1 of the parts. The
    rows' own share of the seeds' variance is in V too, so the sum errs on the safe side.

    Args:
        interval: of the differences of each row, averaged over seeds.
        means: of each data set: number of rows, and (R_d,) difference of each run.

    Returns:
        nats^2 and degrees of freedom; None if a data set has one run, so that its seeds
        cannot be priced, or there is one patient.
    """
    if any(len(differences) < 2 for _, differences in means) or interval.n_patients < 2:
        return None
    n_rows = sum(n for n, _ in means)
    parts = [(interval.standard_error**2, interval.n_patients - 1)]
    for n, differences in means:
        variance = float(np.var(differences, ddof=1)) / len(differences)
        parts.append(((n / n_rows) ** 2 * variance, len(differences) - 1))
    total = sum(variance for variance, _ in parts)
    weighted = sum(variance**2 / degrees for variance, degrees in parts)
    # Without any variance the degrees of freedom do not matter.
    return total, total**2 / weighted if weighted else float(interval.n_patients - 1)
