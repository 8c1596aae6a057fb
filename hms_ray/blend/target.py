"""What ``submit`` and ``export`` are given: a trial, a blend or an export."""

from __future__ import annotations

from pathlib import Path

from hms_ray.blend.exported import EXPORT_FILE
from hms_ray.blend.ladder_members import find_ladder
from hms_ray.blend.result_files import BLEND_FILE
from hms_ray.errors import StudyError
from hms_ray.storage.folder_names import places
from hms_ray.study.folder import StudyFolder, study_names
from hms_ray.study.seeds import TrialTarget, without_seeds
from hms_ray.text import closest, command_line


def find_target(target: str, results: Path) -> TrialTarget | Path:
    """The study and trial that a target names, or the file of a blend or an export.

    Args:
        target: a study's name or path, ``STUDY/TRIAL``, both also with ``@seeds``, a
            ``blend.json``, an ``export.json``, or the folder of one.
        results: folder of all studies.

    Returns:
        The trial; or the path of the ``blend.json`` or ``export.json``.

    Raises:
        StudyError: if the target is none of these, or a damaged study.
    """
    target, seeds = without_seeds(target)
    path = Path(target)
    study, number = StudyFolder.find(path, results), None
    if study is None and path.name.isdigit():
        study, number = StudyFolder.find(path.parent, results), int(path.name)
    if study is not None:
        return TrialTarget(study, number, seeds)
    # An export of a blend has a blend.json too.
    names = (EXPORT_FILE, BLEND_FILE)
    for file in (path, *(place / name for name in names for place in places(path, results)[::-1])):
        if file.is_file():
            return file
    raise _no_target(path, results)


def _no_target(path: Path, results: Path) -> StudyError:
    if find_ladder(path, results) is not None:
        return StudyError(
            "a ladder cannot be submitted or exported",
            got=str(path),
            where=results,
            fix=f"Blend it and use its {BLEND_FILE}: {command_line('blend', path)}",
        )
    name = (path.parent if path.name.isdigit() else path).name
    known = study_names(results)
    return StudyError(
        f"the target must be a study, STUDY/TRIAL, a {BLEND_FILE} or an export",
        got=f"{path}{closest(name, known)}",
        where=results,
        fix="List studies with: hms-ray studies" if known else "Run hms-ray sweep first.",
    )
