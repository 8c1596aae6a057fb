"""A prediction against an alternative, on every objective's rows."""

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
        against: the alternative.
        differences: objective -> nested blend minus alternative (None without rows).
        fitted: the one on the rows that the blend's weights are fitted on.
        bootstrap: ``fitted`` with the interval of a bootstrap over patients, a check.
    """

    against: str
    differences: dict[str, Difference | None]
    fitted: Difference
    bootstrap: Interval

    @property
    def verdict(self) -> Verdict:
        """Of the blend, on the rows that its weights are fitted on."""
        return self.fitted.verdict

    def to_json(self) -> dict[str, Any]:
        """Plain data: verdict, intervals by objective, bootstrap; None for infinity."""
        return {
            "verdict": self.verdict,
            **{
                name: None
                if difference is None
                else {**_interval_json(difference), "verdict": difference.verdict}
                for name, difference in self.differences.items()
            },
            "bootstrap": _interval_json(self.bootstrap),
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
        against: name of the second one.
        blend: (n,) KL of each row under the first one.
        other: (n,) KL of each row under the second one.
        patients: (n,) patient of each row.
        votes: (n,) votes of each row.
        fit_rows: objective that the verdict is on; it must have rows.
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
    return Comparison(
        against,
        differences,
        paired_difference(first, second, owners),
        patient_bootstrap(first - second, owners, np.random.default_rng(seed)),
    )


def _interval_json(interval: Interval) -> dict[str, float | str | None]:
    ends = (interval.low, interval.high)
    low, high = (end if np.isfinite(end) else None for end in ends)
    return {"mean": interval.mean, "low": low, "high": high}
