"""Trials that are a tie with the best one."""

from __future__ import annotations

from collections.abc import Sequence

from hms_ray.evaluate.intervals import PatientSums


def tied_with_best(numbers: Sequence[int], scores: PatientSums) -> frozenset[int]:
    """Numbers of the trials that are a tie with the first one.

    A tie: the paired 95% interval of the difference, clustered by patient, contains 0
    (see ``paired_difference``). The best trial was selected among many, so slightly too
    few trials count as ties.

    Args:
        numbers: of finished trials, best first.
        scores: their row KLs on the rows of the objective, summed by patient.
    """
    differences = zip(numbers, scores.minus(0), strict=True)
    return frozenset(number for number, difference in differences if difference.tie) - {numbers[0]}
