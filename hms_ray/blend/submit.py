"""``hms-ray submit``: a study, a trial or a blend to a checked submission."""

from __future__ import annotations

from pathlib import Path

from hms_ray.blend.apply import apply_blend
from hms_ray.blend.ladder_members import find_ladder
from hms_ray.blend.result_files import BLEND_FILE
from hms_ray.errors import ConfigError, StudyError
from hms_ray.predict.files import require_output_file, write_submission
from hms_ray.predict.submit_trial import SUBMISSION, SubmitOptions, submit_trial
from hms_ray.study.folder import StudyFolder, study_names
from hms_ray.text import closest, command_line, counted


def submit(target: str, options: SubmitOptions) -> str:
    """Predicts new recordings with what the target names and writes them as a file.

    Args:
        target: a study's name or path (its best trial), ``STUDY/TRIAL``, a ``blend.json``
            or the folder of one.
        options: of the command.

    Returns:
        Lines to print.

    Raises:
        StudyError: if the target is none of these, or damaged.
        ConfigError: if an option does not fit the target; see ``submit_trial``,
            ``apply_blend``.
    """
    path, results = Path(target), options.results
    study, number = StudyFolder.find(path, results), None
    if study is None and path.name.isdigit():
        study, number = StudyFolder.find(path.parent, results), int(path.name)
    if study is not None:
        if options.predictions:
            raise ConfigError(
                "--predictions replaces members of a blend",
                got=f"a study, {study.name}",
                fix="Omit it, or submit a blend.json.",
            )
        return submit_trial(study, number, options)
    for file in (path, path / BLEND_FILE, results / path / BLEND_FILE):
        if file.is_file():
            return _submit_blend(file, options)
    raise _no_target(path, results)


def _submit_blend(file: Path, options: SubmitOptions) -> str:
    """Writes the submission of a blend; returns the lines to print."""
    if options.train_rows:
        raise ConfigError(
            "--train-rows needs a study or a trial",
            got=f"a blend, {file}",
            fix="Omit it, or submit the members one by one.",
        )
    out = options.out or SUBMISSION
    require_output_file(out)
    applied = apply_blend(file, options)
    write_submission(out, applied.submission, applied.eeg_ids)
    n_rows = counted(len(applied.eeg_ids), "row")
    return "\n".join([*applied.notes, f"{out}: {n_rows}, blend of {file}"])


def _no_target(path: Path, results: Path) -> StudyError:
    if find_ladder(path, results) is not None:
        return StudyError(
            "a ladder cannot be submitted",
            got=str(path),
            where=results,
            fix=f"Blend it and submit its {BLEND_FILE}: {command_line('blend', path)}",
        )
    name = (path.parent if path.name.isdigit() else path).name
    known = study_names(results)
    return StudyError(
        f"submit needs a study, STUDY/TRIAL or a {BLEND_FILE}",
        got=f"{path}{closest(name, known)}",
        where=results,
        fix="List studies with: hms-ray studies" if known else "Run hms-ray sweep first.",
    )
