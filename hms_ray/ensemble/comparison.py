"""Nested predictions compared with an alternative on the rows of every objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_ray.config.space import Objective
from hms_ray.evaluate.intervals import (
    Difference,
    Interval,
    Verdict,
    paired_difference,
    patient_bootstrap,
)
from hms_ray.evaluate.metric import OBJECTIVES, Array


@dataclass(frozen=True)
class Comparison:
    """The nested blend against an alternative.

    Attributes:
        against: name of the alternative.
        differences: objective -> nested blend minus alternative (None without rows).
        fitted: the difference on the rows that the blend is fitted on.
        bootstrap: ``fitted`` with a bootstrap interval over patients, as a check.
    """

    against: str
    differences: dict[str, Difference | None]
    fitted: Difference
    bootstrap: Interval

    @property
    def verdict(self) -> Verdict:
        """Whether the blend is better, on the rows that it is fitted on."""
        return self.fitted.verdict

    def to_json(self) -> dict[str, Any]:
        """JSON data: verdict, differences by objective, bootstrap; None for infinity."""
        return {
            "verdict": self.verdict,
            **{
                name: None if difference is None else difference.to_json()
                for name, difference in self.differences.items()
            },
            "bootstrap": self.bootstrap.to_json(),
        }


def compare(
    against: str,
    blend: Array,
    other: Array,
    patients: NDArray[Any],
    votes: Array,
    fit_rows: Objective,
    seed: int,
) -> Comparison:
    """Compares two predictions by their row scores.

    Args:
        against: name of the second prediction.
        blend: (n,) KL of each row under the first prediction.
        other: (n,) KL of each row under the second prediction.
        patients: (n,) patient of each row.
        votes: (n,) votes of each row.
        fit_rows: objective of the verdict; it must have rows.
        seed: of the bootstrap.
    """
    differences: dict[str, Difference | None] = {}
    for name, fewest in OBJECTIVES.items():
        scored = votes >= fewest
        differences[name] = (
            paired_difference(blend[scored], other[scored], patients[scored])
            if scored.any()
            else None
        )
    scored = votes >= OBJECTIVES[fit_rows]
    first, second, owners = blend[scored], other[scored], patients[scored]
    (bootstrap,) = patient_bootstrap([first - second], owners, np.random.default_rng(seed))
    return Comparison(against, differences, paired_difference(first, second, owners), bootstrap)
