"""The label rows that a study's rows were made of, and the draw of one per row and epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hms_ray.config.training import ResolvedStage
from hms_ray.train.stage_rows import belongs_to


@dataclass(frozen=True)
class LabelRows:
    """The label rows that each row of a study was made of.

    Attributes:
        first: (N + 1,) int64, row k has the label rows from ``first[k]`` to before
            ``first[k + 1]``, at least one.
        targets: (L, 6) float64, shares of votes, sum 1.
        total_votes: (L,) int64.
    """

    first: NDArray[np.int64]
    targets: NDArray[np.float64]
    total_votes: NDArray[np.int64]

    def drawn(
        self, rows: NDArray[np.int64], stage: ResolvedStage, generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draws one label row for each row, all with equal probability.

        With ``random_row``, rows of a stage with at least a threshold of votes draw among their
        label rows that have them too. A row may lack one if its windows without a usable signal
        were dropped; it draws among all.

        Args:
            rows: (n,) rows of the stage.
            stage: decides which label rows are drawn.
            generator: source of the draws.

        Returns:
            (n,) positions of label rows.
        """
        allowed = np.ones(len(self.total_votes), dtype=bool)
        if stage.label_rows == "random_row" and stage.rows == "at_least_threshold":
            allowed = belongs_to(stage, self.total_votes, self.targets)
            n_allowed = np.add.reduceat(allowed, self.first[:-1], dtype=np.int64)
            allowed |= np.repeat(n_allowed == 0, np.diff(self.first))
        places = np.flatnonzero(allowed)
        first = np.searchsorted(places, self.first)
        drawn: NDArray[np.int64] = places[first[rows] + generator.integers(np.diff(first)[rows])]
        return drawn
