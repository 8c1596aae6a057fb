"""A ladder as data frames, for its report and for notebooks; see ``frames``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from hms_ray.display.ladder_report import LadderReport
from hms_ray.errors import HmsRayError
from hms_ray.ladder.folder import StoredLadder, find_ladder, read_ladder
from hms_ray.ladder.report import make_report
from hms_ray.report.trial_frames import EVALUATION, evaluations
from hms_ray.storage.fold_store import FoldStore
from hms_ray.text import shortened_list

RESULTS = "results"


class LadderData:
    """A ladder's folder, its report, and a list of what is missing.

    Args:
        folder: of the ladder.

    Attributes:
        folder: of the ladder.
        missing: sentences on what could not be read.

    Raises:
        StudyError, PredictionError: see ``read_ladder``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.missing: list[str] = []
        self.stored: StoredLadder = read_ladder(folder)
        self.report: LadderReport = make_report(
            self.stored.rows, self.stored.results, self.stored.about
        )

    @classmethod
    def of(cls, ladder: LadderData | str | Path, results: str | Path = RESULTS) -> LadderData:
        """A ladder by its name below ``results``, by its path, or as it is.

        Raises:
            StudyError: if there is none.
        """
        if isinstance(ladder, LadderData):
            return ladder
        return cls(find_ladder(ladder, Path(results)))


def steps(ladder: LadderData | str | Path, results: str | Path = RESULTS) -> pd.DataFrame:
    """Scores of the steps and their differences to the baselines.

    Returns:
        One row per step and group of rows: ``step``, ``baseline``, ``group``, ``kl``, ``low``,
        ``high``, ``difference``, ``difference_low``, ``difference_high``, ``verdict``,
        ``optimistic`` and ``published`` (KL of the same checkpoint on the same rows, if known).
    """
    report = LadderData.of(ladder, results).report
    rows: list[dict[str, Any]] = []
    for step in report.steps:
        for group, score in step.scores.items():
            found = score.difference
            rows.append(
                {
                    "step": step.name,
                    "baseline": step.before,
                    "group": group,
                    "kl": score.kl.mean,
                    "low": score.kl.low,
                    "high": score.kl.high,
                    "difference": None if found is None else found.mean,
                    "difference_low": None if found is None else found.low,
                    "difference_high": None if found is None else found.high,
                    "verdict": None
                    if found is None
                    else ("same" if found.same else str(found.verdict)),
                    "optimistic": step.optimistic,
                    "published": step.published_like if group == step.published_group else None,
                }
            )
    return pd.DataFrame(rows)


def step_curves(ladder: LadderData | str | Path, results: str | Path = RESULTS) -> pd.DataFrame:
    """The evaluations of each fold of each experiment, from the fold store.

    Returns:
        The columns of ``frames.curves``, with ``step`` in place of ``trial``.
    """
    data = LadderData.of(ladder, results)
    store, rows, lost = FoldStore(data.folder.resolve().parent), list[dict[str, Any]](), []
    for step in data.stored.results:
        for fold, key in sorted((step.keys or {}).items()):
            try:
                history = store.record(key)["history"]
                rows += evaluations(history, step=step.name, fold=int(fold))
            except (HmsRayError, LookupError, TypeError, ValueError):
                lost.append(f"{step.name} fold {fold}")
    if lost:
        text = f"Curves that the fold store does not have any more: {shortened_list(lost)}."
        if text not in data.missing:
            data.missing.append(text)
    return pd.DataFrame(rows, columns=["step", "fold", *EVALUATION])
