"""The first reference of a study by blend gain that comes from another blend."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hms_ray.blend.result_files import BLEND_FILE, NESTED_FILE
from hms_ray.blend.stored import read_blend
from hms_ray.errors import ConfigError, PredictionError
from hms_ray.evaluate.metric import Array
from hms_ray.evaluate.oof import probabilities_of, read_oof
from hms_ray.storage.folder_names import places
from hms_ray.storage.structured_files import read_json
from hms_ray.study.folder import StudyFolder
from hms_ray.study.references import Reference, n_references, write_reference

_FIX = "Blend models of the same rows and folds with hms-ray blend, or set gain.reference: null."


def check_reference(source: str, results: Path, rows: pd.DataFrame) -> Array:
    """Nested predictions (n, 6) of a stored blend, after checking that they fit a study.

    Args:
        source: ``STUDY/blend``, or the folder of a blend, below ``results`` or as a path.
        results: folder of all studies.
        rows: of the study, with their folds.

    Raises:
        ConfigError: if there is no blend, or its rows or folds are not those of the study.
        StudyError: if its files are damaged.
    """
    file = _blend_file(source, results)
    read_blend(file)
    try:
        return probabilities_of(read_oof(file.with_name(NESTED_FILE), rows))
    except PredictionError as error:
        raise ConfigError(
            "gain.reference must be a blend of the study's rows and folds",
            got=f"{error.rule}: {error.got}",
            where=error.where,
            fix=_FIX,
        ) from None


def add_first_reference(folder: StudyFolder, source: str | None) -> None:
    """Stores a blend as reference 0 of a new study; a study that has one keeps it.

    The copy is frozen: the blend may change or go afterwards. The caller holds the lock.

    Raises:
        ConfigError, StudyError: see ``check_reference``.
    """
    if source is None or n_references(folder):
        return
    rows, results = folder.rows(), folder.path.resolve().parent
    probabilities = check_reference(source, results, rows)
    file = _blend_file(source, results)
    blend = read_blend(file)
    members = read_json(file, dict)["members"]
    reference = Reference(0, blend.method, members, [], probabilities, blend.optimistic, source)
    write_reference(folder, rows, reference)


def _blend_file(source: str, results: Path) -> Path:
    for place in places(source, results):
        for file in (place, place / BLEND_FILE):
            if file.is_file() and file.name == BLEND_FILE:
                return file
    raise ConfigError(
        "gain.reference must be STUDY/blend or the folder of a blend",
        got=source,
        where=results,
        fix="Write it first: hms-ray blend STUDY",
    )
