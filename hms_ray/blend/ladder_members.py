"""Ladders as inputs of a blend: their steps as members, their rows as targets."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hms_ray.blend.align import Member, as_targets
from hms_ray.blend.external_files import Targets
from hms_ray.blend.row_keys import as_keys
from hms_ray.errors import StudyError
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.ladder.folder import StoredLadder, read_ladder
from hms_ray.ladder.report import TABLE_FILE
from hms_ray.ladder.steps_file import STEPS_FILE
from hms_ray.storage.folder_names import places
from hms_ray.study.folder import study_names
from hms_ray.text import closest


def find_ladder(path: Path, results: Path) -> tuple[Path, str | None] | None:
    """Folder of a ladder by its name or path, and the step if one is named; None if neither."""
    for ladder, step in ((path, None), (path.parent, path.name)):
        for place in places(ladder, results):
            # A ladder may have its table without its predictions: ``read_ladder`` refuses it.
            if any((place / file).is_file() for file in (STEPS_FILE, TABLE_FILE)):
                return place, step
    return None


def steps_of(path: Path, results: Path) -> list[Member]:
    """The trained steps of ``LADDER``, or the step of ``LADDER/STEP``, trained or blended.

    Raises:
        StudyError: if there is no such ladder or step.
    """
    rule = (
        "an input must be STUDY, STUDY/TRIAL, LADDER, LADDER/STEP, cache keys KEY,KEY,... "
        "or a .csv or .parquet file"
    )
    place, step = _require_ladder(path, results, rule)
    stored, name = read_ladder(place), place.resolve().name
    targets = _targets(stored, name)
    chosen = [
        result
        for result in stored.results
        if (result.kind == "experiment" if step is None else result.name == step)
    ]
    if not chosen:
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
        for result in chosen
    ]


def targets_of_ladder(path: Path, results: Path) -> Targets:
    """The rows of a ladder with their votes; errors as ``steps_of``."""
    rule = "targets must be a study, a ladder, or a .csv or .parquet file"
    place, _ = _require_ladder(path, results, rule)
    return _targets(read_ladder(place), place.resolve().name)


def _require_ladder(path: Path, results: Path, rule: str) -> tuple[Path, str | None]:
    """See ``find_ladder``; the error names the nearest study or ladder."""
    found = find_ladder(path, results)
    if found is not None:
        return found
    ladders = [file.parent.name for file in results.glob(f"*/{STEPS_FILE}")]
    known = [*study_names(results), *ladders]
    name = path.parent.name if str(path.parent) != "." else path.name
    raise StudyError(
        rule,
        got=f"{path}{closest(name, known)}",
        where=results,
        fix="List studies with: hms-ray studies" if known else "Run one first: hms-ray sweep",
    )


def _targets(stored: StoredLadder, name: str) -> Targets:
    """The rows of a ladder; ladders of older versions do not state their unit."""
    described = stored.about.get("rows")
    unit = described.get("unit") if isinstance(described, dict) else None
    return as_targets(stored.rows, as_keys(unit), name)
