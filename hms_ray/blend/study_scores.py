"""Scores of a study's best trial and of its blend."""

from __future__ import annotations

from hms_ray.evaluate.metric import OBJECTIVES
from hms_ray.storage.structured_files import read_json, unreadable_file
from hms_ray.study.folder import StudyFolder
from hms_ray.text import command_line


def best_scores(folder: StudyFolder) -> dict[str, dict[str, float | None]]:
    """Scores of the best trial and, if there is a blend, its nested scores.

    If trials finished or were removed since the blend, its title states how many it has.

    Raises:
        StudyError: if no trial has finished, or ``blend.json`` is damaged.
    """
    finished = folder.require_finished()
    scores = {
        f"best trial {finished[0].number:04d}{_mark(finished[0].optimistic)}": finished[0].scores
    }
    file = folder.path / "blend" / "blend.json"
    if not file.is_file():
        return scores
    fix = f"Blend the study again: {command_line('blend', folder.name)}"
    blend = read_json(file, dict, fix)
    try:
        names, nested = {member["name"] for member in blend["members"]}, blend["nested"]
        title = _title(names, {f"{trial.number:04d}" for trial in finished})
        title += _mark(bool(blend["optimistic"]))
        scores[title] = {name: nested[name] for name in OBJECTIVES}
    except (KeyError, TypeError) as error:
        raise unreadable_file(file, error, fix) from None
    return scores


def _title(members: set[str], finished: set[str]) -> str:
    """Name of the blend, and how it differs from one of the trials finished now."""
    gone = len(members - finished)
    if gone:
        return f"blend of {len(members)} trials, {gone} removed since, nested"
    if members != finished:
        return f"blend of {len(members)} of {len(finished)} trials, nested"
    return "blend, nested by patient"


def _mark(optimistic: bool) -> str:
    return " (optimistic)" if optimistic else ""
