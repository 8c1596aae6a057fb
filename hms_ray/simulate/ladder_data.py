"""Simulated data for a ladder: its default folder, how it was simulated, and its oracle KL."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pandas as pd

from hms_ray.competition.read import LABEL_FILE
from hms_ray.competition.rows import Unit, Window
from hms_ray.evaluate.metric import OBJECTIVES
from hms_ray.simulate.cohort import TRUTH_FILE
from hms_ray.simulate.folder import MANIFEST_FILE, simulate_folder
from hms_ray.simulate.oracle import oracle_report

FOLDER_NAME: Final = ".ladder-data"
"""Folder below the results that a ladder without ``--data`` simulates and uses."""
SEED: Final = 0
N_PATIENTS: Final = 300
"""The small ladder uses at most this many; with fewer, most differences are ties."""
_STORED_NAMES: Final = {
    "perfect": "oracle",
    "tier_unknown": "oracle_without_tier",
    "class_mean": "class_mean",
}
"""Key in a stored ladder -> field of ``OracleScores``."""


def default_folder(
    results: Path, processes: int, progress: Callable[[int, int], None] | None = None
) -> Path:
    """The default data of a ladder below the results, simulated if missing.

    ``progress`` is called with (patients done, number of patients).
    """
    folder = results / FOLDER_NAME
    if not (folder / LABEL_FILE).is_file():
        results.mkdir(parents=True, exist_ok=True)
        simulate_folder(folder, N_PATIENTS, SEED, processes, progress)
    return folder


def simulation_of(folder: Path) -> dict[str, Any] | None:
    """How a folder was simulated; None if it has no readable ``simulation.json``."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def oracle_scores(
    folder: Path, unit: Unit, window: Window, rows: pd.DataFrame
) -> dict[str, dict[str, float | None]] | None:
    """Oracle KL and class means of rows of a competition folder, as a ladder stores them.

    Returns:
        ``perfect`` (oracle), ``tier_unknown`` (oracle without tier) or ``class_mean`` ->
        score -> nats, None without rows; None for a folder without truth.

    Raises:
        DataError: if the truth is damaged or the rows are not of this folder.
    """
    if not (folder / TRUTH_FILE).is_file():
        return None
    report = oracle_report(folder, unit, window, rows["row_id"].tolist())
    report.require_rows(rows)
    return {
        stored: {
            score: getattr(line, name)
            for score, line in zip(OBJECTIVES, report.cumulative, strict=True)
        }
        for stored, name in _STORED_NAMES.items()
    }
