"""How long predictions took, and how long the competition's test set would take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hms_ray.text import counted

TEST_ROWS: Final = 3_000
"""About the number of recordings in the competition's hidden test set."""
MIN_ROWS: Final = 64
"""With fewer rows, batches are not full and the estimate is far too high."""


@dataclass
class RunTimes:
    """Seconds of one run, without its start.

    Attributes:
        packing_s: reading and packing recordings; grows with their number.
        models_s: building models and reading weights; does not depend on the recordings.
        rows_s: making images and predicting; grows with the number of recordings.
    """

    packing_s: float = 0.0
    models_s: float = 0.0
    rows_s: float = 0.0

    def estimate_s(self, n_rows: int, expected: int = TEST_ROWS) -> float:
        """Estimated seconds for another number of rows on this machine."""
        return self.models_s + (self.packing_s + self.rows_s) * expected / n_rows

    def text(self, n_rows: int) -> str:
        """The measured time and the estimate, as one line to print."""
        total = self.packing_s + self.models_s + self.rows_s
        estimate = self.estimate_s(n_rows) / 60
        about = "about" if n_rows >= MIN_ROWS else "at most"
        return (
            f"{counted(n_rows, 'test row')} in {total:.1f} s (packing {self.packing_s:.1f} s, "
            f"models {self.models_s:.1f} s, predicting {self.rows_s:.1f} s); at this rate "
            f"{TEST_ROWS:,} rows take {about} {estimate:,.{0 if estimate >= 10 else 1}f} min"
        )
