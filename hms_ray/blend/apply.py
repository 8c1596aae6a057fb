"""A blend fitted on out-of-fold predictions, applied to test recordings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from hms_ray.blend.column_names import parse_columns
from hms_ray.blend.external_files import read_test_predictions
from hms_ray.blend.stored import StoredBlend, StoredMember, read_blend
from hms_ray.errors import ConfigError, PredictionError, StudyError
from hms_ray.evaluate.metric import Array
from hms_ray.predict.submission import make_submission, probabilities_in
from hms_ray.predict.submit_trial import SubmitOptions
from hms_ray.predict.test_set import eegs_to_submit, predict_test_set
from hms_ray.predict.trial import ModelChoice, TrialModels, read_models, require_weights
from hms_ray.text import closest


@dataclass(frozen=True)
class AppliedBlend:
    """A blend's predictions of test recordings.

    Attributes:
        submission: columns ``SUBMISSION_COLUMNS``, in the order of ``eeg_ids``.
        eeg_ids: EEGs of the submission.
        notes: lines to print.
        rate: measured time and estimate, a line to print; None if no model was run.
    """

    submission: pd.DataFrame
    eeg_ids: list[int]
    notes: tuple[str, ...]
    rate: str | None


def apply_blend(file: Path, options: SubmitOptions) -> AppliedBlend:
    """Blends the members' predictions of the recordings of ``test.csv``.

    A member's models are read from the fold store by their cache keys; its study is not
    needed. Members of weight 0 are skipped. If predictions of all others are given, torch
    is not imported.

    Args:
        file: ``blend.json``.
        options: of the command. ``predictions`` are files of the same recordings
            (``eeg_id`` and six probabilities), for members from outside or in place of
            their models.

    Returns:
        The submission, checked but for its file, and notes to print.

    Raises:
        ConfigError: if predictions are not of a member, or the device is not available.
        PredictionError: if a member has neither models nor predictions, or predictions
            have gaps, duplicates, foreign EEGs or invalid distributions.
        StudyError: if the blend is damaged, or a fold is missing or damaged.
        DataError: see ``recordings_of_test`` and ``submission_ids``.
    """
    blend = read_blend(file)
    given = named_files(options.predictions)
    _check_given(blend, given)
    eeg_ids = eegs_to_submit(options.data_dir)
    # Files first: an unfit one must be found before an hour of inference.
    columns = parse_columns(options.columns)
    columns.require_known(list(given.values()), "--columns")
    fitted_columns = {member.name: member.columns for member in blend.members}
    parts: dict[str, Array] = {}
    notes: tuple[str, ...] = ()
    for name, path in given.items():
        eegs, shares, done = read_test_predictions(
            path, columns.of(path), fitted_columns[name], renormalise=options.renormalise
        )
        parts[name] = probabilities_in(make_submission(eeg_ids, eegs, shares, path))
        notes += (f"{path}: {done}",) if done else ()
    lacking = [member for member in blend.needed() if member.name not in given]
    keys = {member.name: member.keys or {} for member in lacking}
    require_weights(keys, options.results, "or give predictions: --predictions MEMBER=FILE")
    models = [
        models_of(
            member,
            options.results,
            f"Or give its predictions: --predictions {member.name}=FILE",
            options.models,
            trust_code=options.trust_code,
        )
        for member in lacking
    ]
    applied = predict_blend(blend, models, options, eeg_ids, parts)
    return replace(applied, notes=(*notes, *applied.notes))


def predict_blend(
    blend: StoredBlend,
    models: list[TrialModels],
    options: SubmitOptions,
    eeg_ids: list[int],
    parts: Mapping[str, Array] | None = None,
) -> AppliedBlend:
    """Blends the predictions of models and given ones.

    Args:
        blend: the fitted blend.
        models: of its needed members without given predictions, by name.
        options: of the command.
        eeg_ids: EEGs of the submission.
        parts: given predictions (n, 6) in the order of ``eeg_ids``, by name.
    """
    parts = dict(parts or {})
    n_all, n_used = len(blend.members), len(blend.needed())
    notes: tuple[str, ...] = ()
    rate = None
    if n_used < n_all:
        notes += (f"{n_all - n_used} of {n_all} members have weight 0 and are skipped",)
    if models:
        found = predict_test_set(
            models,
            eeg_ids,
            options.data_dir,
            pack_dir=options.pack_dir,
            device=options.device,
            threads=options.threads,
        )
        notes, rate = notes + found.notes, found.rate
        parts |= {name: probabilities_in(table) for name, table in found.submissions.items()}
    submission = make_submission(eeg_ids, eeg_ids, blend.predict(parts))
    return AppliedBlend(submission, eeg_ids, notes, rate)


def models_of(
    member: StoredMember,
    results: str | Path,
    fix: str,
    choice: ModelChoice = "folds",
    *,
    trust_code: bool = False,
) -> TrialModels:
    """The stored models of a member that has some.

    Args:
        member: with cache keys.
        results: folder of the fold store.
        fix: a second remedy, for errors.
        choice: which models.
        trust_code: see ``TrialModels``.

    Raises:
        StudyError: see ``read_models``; it names the member.
    """
    try:
        keys = member.keys or {}
        return read_models(member.name, keys, results, choice, trust_code=trust_code)
    except StudyError as error:
        place = f"member {member.name}"
        raise StudyError(
            error.rule,
            got=error.got,
            where=place if error.where == member.name else f"{error.where}, {place}",
            fix=f"{error.fix} {fix}",
        ) from None


def _check_given(blend: StoredBlend, given: Mapping[str, Path]) -> None:
    names = [member.name for member in blend.members]
    for name in given:
        if name not in names:
            raise ConfigError(
                "--predictions must name a member of the blend",
                got=f"{name}{closest(name, names)}",
                fix="Use the names in blend.json.",
            )
    lacking = [name for name in blend.without_models() if name not in given]
    if lacking:
        raise PredictionError(
            "a member without stored fold models needs predictions of the test recordings",
            got=f"none for {', '.join(lacking)}",
            fix=f"Give them (eeg_id and six probabilities): {_given_as(lacking[0])}",
        )


def _given_as(name: str) -> str:
    return f"--predictions {shlex.quote(name)}=FILE"


def named_files(texts: Sequence[str]) -> Mapping[str, Path]:
    """Name -> file, from texts ``NAME=FILE``.

    Raises:
        ConfigError: if a text has no name or no file, or a name is given twice.
    """
    files: dict[str, Path] = {}
    for text in texts:
        name, _, file = text.rpartition("=")
        if not name or not file:
            raise ConfigError(
                "--predictions must be given as NAME=FILE",
                got=text,
                fix="Use a member's name in blend.json and a file of its predictions.",
            )
        if name in files:
            raise ConfigError(
                "--predictions must be given once per member",
                got=name,
                fix="Remove one of the files.",
            )
        files[name] = Path(file)
    return files
