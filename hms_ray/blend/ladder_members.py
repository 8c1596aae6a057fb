"""Steps of ladders as what a blend is made of, and a ladder's rows as targets."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pandas as pd

from hms_ray.blend.align import Member, as_targets
from hms_ray.blend.column_names import as_keys
from hms_ray.blend.external_files import Targets
from hms_ray.errors import StudyError
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.ladder.folder import StoredLadder, read_ladder
from hms_ray.ladder.steps_file import STEPS_FILE

_KINDS: Final = (
    "STUDY, STUDY/TRIAL, LADDER, LADDER/STEP, fold keys KEY,KEY,... or a .csv or .parquet file"
)


def steps_of(path: Path, results: Path) -> list[Member]:
    """A ladder's steps that are no blends, or one step of it of any kind.

    Args:
        path: name or path of a ladder, or ``LADDER/STEP``.
        results: folder of ladders.

    Raises:
        StudyError: where there is no such ladder or step.
    """
    found = find_ladder(path, results)
    if found is None:
        raise StudyError(
            f"an input of a blend must be {_KINDS}",
            got=str(path),
            where=results,
            fix=_there_are(results),
        )
    return _members(*found)


def find_ladder(path: Path, results: Path) -> tuple[Path, str | None] | None:
    """A ladder's folder, and the step of it that is meant or None for all."""
    for ladder, step in ((path, None), (path.parent, path.name)):
        for place in (results / ladder, ladder):
            if (place / STEPS_FILE).is_file():
                return place, step
    return None


def _there_are(results: Path) -> str:
    known = sorted(
        file.parent.name
        for name in ("study.json", STEPS_FILE)
        for file in results.glob(f"*/{name}")
    )
    return f"There are: {', '.join(known)}." if known else "There is none yet: hms-ray sweep."


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
            "a step must be one of the ladder's",
            got=f"{step}, and not one of {', '.join(found.name for found in stored.results)}",
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
    """The rows of a ladder; their unit is told of its run, if by no older release's."""
    told = stored.about.get("rows")
    unit = told.get("unit") if isinstance(told, dict) else None
    return as_targets(stored.rows, as_keys(unit), name)


def targets_of_ladder(path: Path, results: Path) -> Targets:
    """The rows of a ladder with their votes.

    Args:
        path: name or path of a ladder, or of a step of it.
        results: folder of ladders.

    Raises:
        StudyError: where there is none.
    """
    found = find_ladder(path, results)
    if found is None:
        raise StudyError(
            "targets must be those of a study, of a ladder, or of a .csv or .parquet file",
            got=str(path),
            where=results,
            fix=_there_are(results),
        )
    place, _ = found
    return _targets(read_ladder(place), place.resolve().name)
