"""The ladders of a results folder, in short."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from hms_ray.errors import HmsRayError
from hms_ray.ladder.folder import ladder_names
from hms_ray.ladder.steps_file import STEPS_FILE
from hms_ray.report.overview import FolderSummary
from hms_ray.storage.structured_files import read_json


def summarise_ladders(results: Path) -> list[FolderSummary]:
    """All ladders of a results folder; those that cannot be read say why."""
    return [_summarise(results / name / STEPS_FILE) for name in ladder_names(results)]


def _summarise(file: Path) -> FolderSummary:
    problem, steps, failed = None, 0, 0
    try:
        content = read_json(file, dict)
        steps, failed = len(content["steps"]), len(content["about"].get("failed") or ())
    except HmsRayError as error:
        problem = str(error)
    except (KeyError, TypeError, AttributeError):
        problem = f"{STEPS_FILE} has no steps"
    written = datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat(timespec="seconds")
    folder = file.parent
    return FolderSummary(
        folder.name, "ladder", steps, failed, None, None, None, written, str(folder), problem
    )
