"""What a ladder is told of a simulated folder, as plain data, and the folder of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pandas as pd

from hms_ray.competition.read import LABEL_FILE
from hms_ray.competition.rows import Unit, Window
from hms_ray.evaluate.metric import OBJECTIVES
from hms_ray.simulate.floor import FLOORS, floor
from hms_ray.simulate.folder import MANIFEST_FILE, simulate_folder
from hms_ray.simulate.tables import TRUTH_FILE

FOLDER_NAME: Final = ".ladder-data"
"""Of the folder that is simulated where no data are given, below the results."""
SEED: Final = 0
N_PATIENTS: Final = 300
"""As many as the small ladder takes of any folder: fewer leave most differences ties."""


def own_folder(
    results: Path, processes: int, progress: Callable[[int, int], None] | None = None
) -> Path:
    """The folder that a ladder without data runs on: the simulator's default profile.

    Args:
        results: folder of all studies.
        processes: processes to use, where it is not there yet.
        progress: called with (patients done, patients in all).
    """
    folder = results / FOLDER_NAME
    if not (folder / LABEL_FILE).is_file():
        results.mkdir(parents=True, exist_ok=True)
        simulate_folder(folder, N_PATIENTS, SEED, processes, progress)
    return folder


def simulation_of(folder: Path) -> dict[str, Any] | None:
    """How a folder was simulated; None where it was not, or nothing readable says so."""
    try:
        told = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def floors_of(
    folder: Path, unit: Unit, window: Window, rows: pd.DataFrame
) -> dict[str, dict[str, float | None]] | None:
    """KL that models which know the truth, and class means, have on some rows.

    Args:
        folder: competition folder.
        unit: of the rows.
        window: of the rows.
        rows: with ``row_id`` and ``total_votes``.

    Returns:
        ``perfect``, ``tier_unknown`` or ``class_mean`` -> score -> nats, None without rows;
        None for a folder without truth.

    Raises:
        DataError: where the truth is damaged or the rows are not of this folder.
    """
    if not (folder / TRUTH_FILE).is_file():
        return None
    report = floor(folder, unit, window, rows["row_id"].tolist())
    report.require_rows(rows)
    return {
        name: {
            score: getattr(line, name)
            for score, line in zip(OBJECTIVES, report.cumulative, strict=True)
        }
        for name in (*FLOORS, "class_mean")
    }
