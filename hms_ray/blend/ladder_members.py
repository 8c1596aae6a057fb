"""Ladders as inputs of a blend: their steps as members, their rows as targets."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hms_ray.blend.align import Member, as_targets
from hms_ray.blend.column_names import as_keys
from hms_ray.blend.external_files import Targets
from hms_ray.errors import StudyError
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.ladder.folder import StoredLadder, read_ladder
from hms_ray.ladder.steps_file import STEPS_FILE
from hms_ray.study.folder import study_names
from hms_ray.text import closest


def find_ladder(path: Path, results: Path) -> tuple[Path, str | None] | None:
    """Folder of a ladder by its name or path, and the step if one is named; None if neither."""
    for ladder, step in ((path, None), (path.parent, path.name)):
        for place in (results / ladder, ladder):
            if (place / STEPS_FILE).is_file():
                return place, step
    return None


def steps_of(path: Path, results: Path) -> list[Member]:
    """The trained steps of a ladder, or one step of it of any kind.

    Args:
        path: name or path of a ladder, or ``LADDER/STEP``.
        results: folder of ladders.

    Raises:
        StudyError: if there is no such ladder or step.
    """
    found = find_ladder(path, results)
    if found is None:
        raise _not_found(
            "an input must be STUDY, STUDY/TRIAL, LADDER, LADDER/STEP, cache keys KEY,KEY,... "
            "or a .csv or .parquet file",
            path,
            results,
        )
    return _members(*found)


def targets_of_ladder(path: Path, results: Path) -> Targets:
    """The rows of a ladder with their votes.

    Args:
        path: name or path of a ladder, or of a step of it.
        results: folder of ladders.

    Raises:
        StudyError: if there is none.
    """
    found = find_ladder(path, results)
    if found is None:
        rule = "targets must be a study, a ladder, or a .csv or .parquet file"
        raise _not_found(rule, path, results)
    place, _ = found
    return _targets(read_ladder(place), place.resolve().name)


def _not_found(rule: str, path: Path, results: Path) -> StudyError:
    """An error that names the nearest study or ladder."""
    ladders = [file.parent.name for file in results.glob(f"*/{STEPS_FILE}")]
    known = [*study_names(results), *ladders]
    name = path.parent.name if str(path.parent) != "." else path.name
    return StudyError(
        rule,
        got=f"{path}{closest(name, known)}",
        where=results,
        fix=None if known else "Run a study first: hms-ray sweep",
    )


def _members(place: Path, step: str | None) -> list[Member]:
    stored, name = read_ladder(place), place.resolve().name
    targets = _targets(stored, name)
    results = [
        result
        for result in stored.results
        if (result.kind == "experiment" if step is None else result.name == step)
    ]
    if not results:
        raise StudyError(
            "the ladder must have the step",
            got=f"{step}{closest(str(step), [result.name for result in stored.results])}",
            where=place,
        )
    return [
        Member(
            name=f"{name}/{result.name}",
            ids=pd.Index(result.oof["row_id"].astype(str)),
            keys=targets.keys,
            probabilities=probabilities_of(result.oof),
            origin={"ladder": name, "step": result.name}
            | ({} if result.keys is None else {"keys": dict(sorted(result.keys.items()))}),
            family=name,
            optimistic=result.optimistic,
            minutes=result.fold_minutes,
            targets=targets,
        )
        for result in results
    ]


def _targets(stored: StoredLadder, name: str) -> Targets:
    """The rows of a ladder; ladders of older versions do not state their unit."""
    described = stored.about.get("rows")
    unit = described.get("unit") if isinstance(described, dict) else None
    return as_targets(stored.rows, as_keys(unit), name)
