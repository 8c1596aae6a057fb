"""``hms-ray holdout``: the best trial and the blend of a study on held-out patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from hms_ray.blend.holdout_scores import blend_scores, trial_scores
from hms_ray.blend.result_files import BLEND_FILE
from hms_ray.blend.stored import StoredBlend, read_blend
from hms_ray.competition.read import read_labels
from hms_ray.competition.rows import split_rows
from hms_ray.dataset.hold_out import DATA_DIR, PACK_DIR
from hms_ray.display.holdout_table import HoldoutReport
from hms_ray.display.live import bar
from hms_ray.errors import DataError, StudyError
from hms_ray.predict.inference import predict_all_folds, require_device
from hms_ray.predict.recordings import recordings_of_held_out
from hms_ray.predict.trial import TrialModels, read_models, require_weights
from hms_ray.storage.atomic import require_writable
from hms_ray.storage.fold_store import StoredFold
from hms_ray.storage.hashing import table_fingerprint
from hms_ray.study.folder import StudyFolder
from hms_ray.study.holdout import (
    OPENINGS_FILE,
    openings,
    record_opening,
    require_held_out_rows,
)
from hms_ray.study.refit import require_open_holdout
from hms_ray.study.trial import StoredTrial
from hms_ray.text import shortened_list


@dataclass(frozen=True, kw_only=True)
class HoldoutOptions:
    """Options of ``hms-ray holdout``.

    Attributes:
        results: folder of all studies and the fold store.
        data_dir: competition folder; default: the one that the study was made from.
        pack_dir: folder of packs; default: that of the study, or ``packed`` in ``data_dir``.
        device: ``cpu`` or ``cuda``; default: cuda if available.
        threads: torch threads.
        trust_code: run the code of models from elsewhere.
    """

    results: Path = Path("results")
    data_dir: Path | None = None
    pack_dir: Path | None = None
    device: str | None = None
    threads: int = 1
    trust_code: bool = False


@dataclass(frozen=True)
class _Opened:
    """What is scored: the best trial and, if there is one that may be scored, the blend.

    Attributes:
        members: name in the blend -> its models, for each that the blend needs.
        notes: why a blend is not scored.
    """

    trial: StoredTrial
    models: TrialModels
    blend: StoredBlend | None
    members: Mapping[str, TrialModels]
    notes: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """What the study records of the opening."""
        blend = None
        if self.blend is not None:
            keys = {name: _keys(models) for name, models in self.members.items()}
            blend = {"method": self.blend.method, "members": keys}
        return {"trial": self.trial.number, "keys": _keys(self.models), "blend": blend}


def open_holdout(folder: StudyFolder, options: HoldoutOptions) -> HoldoutReport:
    """Scores the best trial and the blend on held-out patients, and records it in the study.

    The record is written after the scores are computed and before they are returned, so that
    nobody sees scores of an opening that is not recorded. If anything fails, none is.

    Raises:
        StudyError: if the study has no hold-out or no finished trial, another command runs
            it, or a fold is missing or damaged.
        ConfigError: if the device is not available, or the record cannot be written.
        DataError: if the competition folder is gone, or has other held-out rows.
    """
    rows = require_held_out_rows(folder)
    require_open_holdout(folder)
    require_writable(folder.path / OPENINGS_FILE)
    with folder.lock():
        before = openings(folder)
        opened = _what_to_open(folder, rows, options)
        report = _scored(folder, rows, opened, options)
        scores = [one.to_json() for one in report.scores]
        record_opening(folder, {**opened.record(), "scores": scores})
    return replace(report, opened_before=before)


def _what_to_open(folder: StudyFolder, rows: pd.DataFrame, options: HoldoutOptions) -> _Opened:
    trial, results, trust = folder.finished_trial(), options.results, options.trust_code
    models = read_models(f"trial {trial.number:04d}", trial.keys, results, trust_code=trust)
    patients = set(rows["patient_id"])
    if seen := _seen(models, patients):
        raise StudyError(
            "a fold model must not have seen held-out patients",
            got=f"patient {shortened_list(seen)}",
            where=f"{folder.path}, {models.name}",
            fix="Run the study again under another name.",
        )
    file = folder.path / "blend" / BLEND_FILE
    if not file.is_file():
        return _Opened(trial, models, None, {}, ())
    blend = read_blend(file)
    if unknown := blend.without_models():
        note = f"The blend is not scored: {shortened_list(unknown)} may have seen these patients."
        return _Opened(trial, models, None, {}, (note,))
    require_weights({member.name: member.keys or {} for member in blend.needed()}, results)
    members = {
        member.name: read_models(member.name, member.keys or {}, results, trust_code=trust)
        for member in blend.needed()
    }
    if names := [name for name, member in members.items() if _seen(member, patients)]:
        note = f"The blend is not scored: {shortened_list(names)} saw held-out patients."
        return _Opened(trial, models, None, {}, (note,))
    return _Opened(trial, models, blend, members, ())


def _scored(
    folder: StudyFolder, rows: pd.DataFrame, opened: _Opened, options: HoldoutOptions
) -> HoldoutReport:
    require_device(options.device, options.threads)
    for one in (opened.models, *opened.members.values()):
        one.require_code()
    data_dir, pack_dir = _places(folder, rows, options)
    # A trial that is also a member of the blend is predicted once.
    models = {frozenset(_keys(one).items()): one for one in opened.members.values()}
    models[frozenset(_keys(opened.models).items())] = opened.models
    recordings = recordings_of_held_out(
        data_dir,
        rows,
        [one.experiment.joint_input for one in models.values()],
        folder.space().experiment.data.unusable,
        pack_dir=pack_dir,
        bars=bar,
    )
    predicted, notes = predict_all_folds(
        list(models.values()), recordings, options.device, options.threads
    )
    scored = recordings.rows
    scores = [trial_scores(folder, opened.trial, predicted[opened.models.name], scored)]
    if opened.blend is not None:
        parts = {
            name: predicted[models[frozenset(_keys(member).items())].name]
            for name, member in opened.members.items()
        }
        scores.append(blend_scores(folder, opened.blend, opened.members, parts, scored))
    return HoldoutReport(
        study=folder.name,
        n_rows=len(scored),
        n_patients=int(scored["patient_id"].nunique()),
        scores=scores,
        notes=(*opened.notes, *notes),
    )


def _places(
    folder: StudyFolder, rows: pd.DataFrame, options: HoldoutOptions
) -> tuple[Path, Path | None]:
    """Competition folder and folder of packs, after checking that it has the held-out rows."""
    data_dir = options.data_dir or Path(rows.attrs.get(DATA_DIR, "."))
    fix = "Name the folder that the study was made from: --data DIR"
    if not data_dir.is_dir():
        raise DataError("the competition folder must exist", where=data_dir, fix=fix)
    _, found = split_rows(read_labels(data_dir), folder.space().experiment.data)
    if table_fingerprint(found) != folder.identity["data"]["holdout"]:
        raise DataError(
            "the competition folder must have the held-out rows of the study",
            got=f"{len(found)} other rows",
            where=data_dir,
            fix=fix,
        )
    if options.pack_dir is not None or options.data_dir is not None:
        return data_dir, options.pack_dir
    return data_dir, Path(rows.attrs[PACK_DIR])


def _seen(models: TrialModels, patients: set[int]) -> list[int]:
    """Patients among the rows of a trial's folds: each is validated by one, trained by others."""
    own = {patient for fold in _stored(models).values() for patient in fold.oof["patient_id"]}
    return sorted(own & patients)


def _keys(models: TrialModels) -> dict[str, str]:
    """Fold, as text, -> cache key."""
    return {str(fold): stored.key for fold, stored in _stored(models).items()}


def _stored(models: TrialModels) -> dict[int, StoredFold]:
    """The folds of models that were read from the fold store."""
    return {k: fold for k, fold in models.folds.items() if isinstance(fold, StoredFold)}
