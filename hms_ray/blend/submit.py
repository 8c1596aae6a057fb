"""``hms-ray submit``: a study, a trial, a blend or an export to a checked submission."""

from __future__ import annotations

from pathlib import Path

from hms_ray.blend.apply import AppliedBlend, apply_blend, predict_blend
from hms_ray.blend.exported import EXPORT_FILE, read_export
from hms_ray.blend.target import find_target
from hms_ray.errors import ConfigError, StudyError
from hms_ray.predict.files import require_output_file, write_submission
from hms_ray.predict.submit_trial import SUBMISSION, SubmitOptions, submit_models, submit_trial
from hms_ray.predict.test_set import eegs_to_submit
from hms_ray.text import counted


def submit(target: str, options: SubmitOptions) -> str:
    """Predicts new recordings with what the target names and writes them as a file.

    Args:
        target: a study's name or path (its best trial), ``STUDY/TRIAL``, a ``blend.json``
            or the folder of one, or the folder of an export.
        options: of the command.

    Returns:
        Lines to print.

    Raises:
        StudyError: if the target is none of these, or damaged.
        ConfigError: if an option does not fit the target; see ``submit_trial``,
            ``apply_blend``.
    """
    for name, given in (("--columns", options.columns), ("--renormalise", options.renormalise)):
        if given and not options.predictions:
            raise ConfigError(f"{name} needs --predictions", got="none", fix=f"Omit {name}.")
    found = find_target(target, options.results)
    if not isinstance(found, Path):
        if options.predictions:
            raise _replaces_members(f"a study, {found.study.name}")
        return submit_trial(found, options)
    if options.train_rows:
        kind = "an export" if found.name == EXPORT_FILE else "a blend"
        raise ConfigError(
            "--train-rows needs a study or a trial",
            got=f"{kind}, {found}",
            fix="Omit it, or submit the members one by one.",
        )
    if found.name == EXPORT_FILE and options.models != "folds":
        raise ConfigError(
            "--models needs a study, a trial or a blend",
            got=f"an export, {found.parent}",
            fix="Omit it: an export has the models that it was made with (export --models).",
        )
    out = options.out or SUBMISSION
    require_output_file(out)
    if found.name == EXPORT_FILE:
        return _submit_export(found, options, out)
    return _write(apply_blend(found, options), out, f"blend of {found}")


def _submit_export(file: Path, options: SubmitOptions, out: Path) -> str:
    if options.predictions:
        raise _replaces_members(f"an export, {file.parent}")
    export = read_export(file, trust_code=options.trust_code)
    for models in export.models:
        models.require_code()
    try:
        if export.blend is None:
            (models,) = export.models
            text = submit_models(models, options, out)
        else:
            eeg_ids = eegs_to_submit(options.data_dir)
            applied = predict_blend(export.blend, export.models, options, eeg_ids)
            text = _write(applied, out, export.name)
    except StudyError as error:
        # Files are unchanged, so that this code is not that of the export.
        fix = "Install the wheel in the export, or export again: hms-ray export"
        raise StudyError(error.rule, got=error.got, where=error.where, fix=fix) from None
    return "\n".join([*export.notes, text])


def _write(applied: AppliedBlend, out: Path, name: str) -> str:
    """Writes a blend's submission; returns the lines to print."""
    write_submission(out, applied.submission, applied.eeg_ids)
    lines = [*applied.notes, f"{out}: {counted(len(applied.eeg_ids), 'row')}, {name}"]
    return "\n".join([*lines, *([] if applied.rate is None else [applied.rate])])


def _replaces_members(got: str) -> ConfigError:
    return ConfigError(
        "--predictions replaces members of a blend",
        got=got,
        fix="Omit it, or submit a blend.json.",
    )
