"""A ladder's report: scored from its predictions, and written to files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.display.ladder_page import ladder_page, ladder_table
from hms_ray.display.ladder_report import LadderReport, StepFacts, StepLine
from hms_ray.display.leaderboard import write_csv
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.evaluate.step_scores import GroupRows, row_scores, score_steps
from hms_ray.ladder.folder import check_ladder
from hms_ray.ladder.result import StepResult
from hms_ray.storage.structured_files import write_text

PAGE_FILE: Final = "README.md"
TABLE_FILE: Final = "ladder.csv"

_SEED: Final = 0
"""Of the recalibration splits and the bootstrap, independent of the training seed."""


def make_report(
    rows: pd.DataFrame, results: Sequence[StepResult], about: Mapping[str, Any]
) -> LadderReport:
    """Scores every step on every group of rows.

    Args:
        rows: (n rows) ``ladder.folder.LADDER_COLUMNS``.
        results: the steps, with predictions of these rows in their order.
        about: keys of ``ladder.folder.ABOUT_KEYS``.

    Raises:
        StudyError, PredictionError: see ``ladder.folder.check_ladder``.
    """
    check_ladder(rows, results)
    scores = score_steps(ladder_rows(rows, results), baseline_positions(results), _SEED)
    lines = tuple(
        StepLine(
            **{field.name: getattr(result, field.name) for field in fields(StepFacts)},
            same_as=same,
            scores=step,
        )
        for result, same, step in zip(results, _same_as(results), scores, strict=True)
    )
    return LadderReport(lines, dict(about))


def _same_as(results: Sequence[StepResult]) -> list[str | None]:
    """For each step an earlier experiment with exactly the same predictions, or None."""
    first: dict[bytes, str] = {}
    found = []
    for result in results:
        name = result.name
        if result.kind == "experiment":
            name = first.setdefault(probabilities_of(result.oof).tobytes(), name)
        found.append(None if name == result.name else name)
    return found


def ladder_rows(rows: pd.DataFrame, results: Sequence[StepResult]) -> dict[str, GroupRows]:
    """KL of every row under every step, by group; see ``row_scores``."""
    return row_scores(
        rows[list(TARGET_COLUMNS)].to_numpy(float),
        rows["total_votes"].to_numpy(),
        rows["patient_id"].to_numpy(),
        [probabilities_of(result.oof) for result in results],
        _SEED,
    )


def baseline_positions(results: Sequence[StepResult]) -> list[int | None]:
    """Position of each step's baseline; None for a first step."""
    position = {result.name: number for number, result in enumerate(results)}
    return [None if result.before is None else position[result.before] for result in results]


def write_report(folder: str | Path, report: LadderReport) -> None:
    """Writes the page and the table."""
    folder = Path(folder)
    write_text(folder / PAGE_FILE, ladder_page(report))
    write_csv(ladder_table(report), folder / TABLE_FILE)
