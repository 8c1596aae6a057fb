"""The best trial of a study and what its blend is worth, as its folder tells."""

from __future__ import annotations

from hms_ray.errors import StudyError
from hms_ray.evaluate.metric import OBJECTIVES
from hms_ray.storage.structured_files import damaged, read_json
from hms_ray.study.folder import StudyFolder

_EARLIER = "simplex weights"
"""The method of blends of earlier releases."""


def best_scores(folder: StudyFolder) -> dict[str, dict[str, float | None]]:
    """Scores of the best trial and, once there is one, the nested ones of the blend.

    A blend stays as it was made: where trials ended since, or are gone, its name
    says how many it is of.

    Raises:
        StudyError: where no trial is finished, or ``blend.json`` is damaged.
    """
    finished = folder.finished_trials()
    if not finished:
        raise StudyError("the study needs a finished trial", got="none", where=folder.path)
    scores = {
        f"best trial {finished[0].number:04d}{_mark(finished[0].optimistic)}": finished[0].scores
    }
    file = folder.path / "blend" / "blend.json"
    if not file.is_file():
        return scores
    fix = f"Blend the study again: hms-ray blend {folder.name}"
    blend = read_json(file, dict, fix)
    try:
        # Blends of earlier releases are of simplex weights, and name their models there.
        members = blend.get("members")
        names = blend["weights"] if members is None else [member["name"] for member in members]
        nested = blend["nested"] if "nested" in blend else blend["methods"][_EARLIER]["nested"]
        title = _title(set(names), {f"{trial.number:04d}" for trial in finished})
        title += _mark(bool(blend["optimistic"]))
        scores[title] = {name: nested[name] for name in OBJECTIVES}
    except (KeyError, TypeError) as error:
        raise damaged(file, error, fix) from None
    return scores


def _title(members: set[str], finished: set[str]) -> str:
    """The blend's name, with what tells it from a blend of today's trials."""
    gone = len(members - finished)
    if gone:
        return f"blend of {len(members)} trials, {gone} gone, nested"
    if members != finished:
        return f"blend of {len(members)} of {len(finished)} trials, nested"
    return "blend, nested by patient"


def _mark(optimistic: bool) -> str:
    return " (optimistic)" if optimistic else ""
