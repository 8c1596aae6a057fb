"""A blend that was fitted on out-of-fold predictions, applied to test recordings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.schema import N_CLASSES
from hms_ray.errors import ConfigError, PredictionError, StudyError
from hms_ray.evaluate.metric import Array
from hms_ray.evaluate.pools.arithmetic import FittedClassMean, FittedMean
from hms_ray.evaluate.pools.catalogue import fitted_from_json
from hms_ray.evaluate.pools.combined import FittedAverage, FittedRecalibrated
from hms_ray.evaluate.pools.interface import FittedPool
from hms_ray.predict.files import read_predictions
from hms_ray.predict.recordings import Recordings, read_test_rows, recordings_of_test
from hms_ray.predict.submission import make_submission, probabilities_in, submission_ids
from hms_ray.predict.trial import TrialModels, read_models
from hms_ray.prepare import Bars
from hms_ray.study.files import read_json

_FIX = "Blend again: hms-ray blend STUDY"


@dataclass(frozen=True)
class Member:
    """One of the models that are blended.

    Attributes:
        name: unlike all others'.
        keys: fold -> address in the store; None where they are not known, as of
            predictions that were brought from elsewhere.
    """

    name: str
    keys: Mapping[int, str] | None


@dataclass(frozen=True)
class StoredBlend:
    """What ``blend.json`` says of a blend.

    Attributes:
        method: name of the pool's method.
        pool: as it was fitted.
        members: in the order of the fit.
    """

    method: str
    pool: FittedPool
    members: tuple[Member, ...]

    def needed(self) -> tuple[Member, ...]:
        """The members that the pool looks at: a mean leaves out models of weight 0."""
        counts = _looked_at(self.pool, len(self.members))
        return tuple(m for m, count in zip(self.members, counts, strict=True) if count)


@dataclass(frozen=True)
class Applied:
    """What a blend predicts of test recordings.

    Attributes:
        submission: columns ``SUBMISSION_COLUMNS``, in the order of ``eeg_ids``.
        eeg_ids: EEGs of the submission.
        notes: lines to say.
    """

    submission: pd.DataFrame
    eeg_ids: list[int]
    notes: tuple[str, ...]


def _looked_at(pool: FittedPool, n_members: int) -> NDArray[np.bool_]:
    """Whether each of the (M,) members can change what a pool predicts."""
    counts: NDArray[np.bool_] = np.ones(n_members, dtype=np.bool_)
    match pool:
        case FittedMean() | FittedClassMean():
            counts = np.atleast_2d(pool.weights).max(axis=0) > 0
        case FittedRecalibrated():
            counts = _looked_at(pool.member, n_members)
        case FittedAverage():
            used = [part for part, weight in zip(pool.members, pool.weights, strict=True) if weight]
            counts = np.any([_looked_at(part, n_members) for part in used], axis=0)
    return counts


def read_blend(file: Path) -> StoredBlend:
    """Reads a fitted blend.

    Raises:
        StudyError: where the file is damaged or lacks what must be in it.
        PredictionError: for a pool that is broken, of an unknown form or of another
            number of members; it names the file.
    """
    if not file.is_file():
        raise PredictionError("a blend must exist to be applied", got="none", where=file, fix=_FIX)
    data = read_json(file, dict, _FIX)
    absent = [name for name in ("method", "pool", "members") if name not in data]
    if absent:
        raise StudyError(
            "a blend's file must have its method, pool and members",
            got=f"no {', no '.join(absent)}",
            where=file,
            fix=_FIX,
        )
    try:
        members = tuple(_member(told) for told in data["members"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StudyError(
            "each member of a blend must have its name, and keys by the numbers of folds or none",
            got=f"{type(error).__name__}: {error}",
            where=file,
            fix=_FIX,
        ) from None
    names = [member.name for member in members]
    if len(set(names)) < len(names) or not names:
        raise PredictionError(
            "the members of a blend must have names of their own",
            got=", ".join(names) or "no member",
            where=file,
            fix=_FIX,
        )
    try:
        fitted = fitted_from_json(data["pool"])
        # A pool of other members must be found out before any model runs.
        fitted.predict(_even(len(members), 1))
    except PredictionError as error:
        place = file if error.where is None else f"{file}, {error.where}"
        raise PredictionError(error.rule, got=error.got, where=place, fix=_FIX) from None
    return StoredBlend(str(data["method"]), fitted, members)


def _member(told: Mapping[str, Any]) -> Member:
    keys = told.get("keys")
    if keys is None:
        return Member(str(told["name"]), None)
    return Member(str(told["name"]), {int(fold): str(key) for fold, key in keys.items()})


def apply_blend(
    file: str | Path,
    data_dir: str | Path,
    *,
    results: str | Path = "results",
    given: Mapping[str, Path] | None = None,
    pack_dir: str | Path | None = None,
    device: str | None = None,
    threads: int = 1,
    bars: Bars | None = None,
) -> Applied:
    """Blends the members' predictions of the recordings of ``test.csv``.

    A member's models are taken from the store by their keys; its study need not be there.
    Members of weight 0 are not predicted. Where all others' predictions are given, torch
    is not imported.

    Args:
        file: ``blend.json``.
        data_dir: competition folder with a test set.
        results: folder whose store holds the members' folds.
        given: member -> file of its predictions of the same recordings (``eeg_id`` and
            six probabilities), for members brought from elsewhere; it also takes the place
            of models.
        pack_dir: where packs are kept; beside the data where absent.
        device: ``cpu`` or ``cuda``; see ``open_device``.
        threads: torch threads.
        bars: makes progress bars.

    Returns:
        The submission, checked but for its file, and what to say.

    Raises:
        ConfigError: for predictions of what is no member, or a device that is not there.
        PredictionError: for a member without model and predictions, and predictions with
            gaps, duplicates, foreign EEGs or invalid distributions.
        StudyError: for a damaged blend, or a fold that is absent or damaged.
        DataError: as of ``recordings_of_test`` and ``submission_ids``.
    """
    blend, given, data_dir = read_blend(Path(file)), given or {}, Path(data_dir)
    _check_given(blend, given)
    eeg_ids = submission_ids(data_dir, read_test_rows(data_dir)["eeg_id"].tolist())
    # Small things first: a file that does not fit must not cost an hour of models.
    parts = {name: _given(path, eeg_ids) for name, path in given.items()}
    models = [
        read_models(member.name, member.keys, results)
        for member in blend.needed()
        if member.name not in given and member.keys is not None
    ]
    notes = _unneeded_note(blend)
    if models:
        inputs = [trial.experiment.input for trial in models]
        recordings = recordings_of_test(data_dir, inputs, pack_dir=pack_dir, bars=bars)
        predicted, said = predict_all(models, recordings, device, threads, bars)
        notes += said
        found = recordings.rows["eeg_id"]
        for name, table in predicted.items():
            parts[name] = probabilities_in(make_submission(eeg_ids, found, table))
    (unneeded,) = _even(1, len(eeg_ids))
    stack = np.stack([parts.get(member.name, unneeded) for member in blend.members])
    submission = make_submission(eeg_ids, eeg_ids, blend.pool.predict(stack))
    return Applied(submission, eeg_ids, notes)


def predict_all(
    trials: list[TrialModels],
    recordings: Recordings,
    device: str | None,
    threads: int,
    bars: Bars | None,
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Probabilities by the models of some trials, and what to say.

    Args:
        trials: with names of their own.
        recordings: rows, with packs of all that the trials read.
        device: as of ``open_device``.
        threads: as of ``open_device``.
        bars: makes the progress bar of each trial.

    Returns:
        Name -> (n, 6) float64; and the notes of recordings and models.

    Raises:
        ConfigError: as of ``open_device``.
        StudyError: as of ``predict_trial``.
    """
    # It brings torch, which blending given predictions does without.
    from contextlib import nullcontext

    from hms_ray.predict.models import open_device, predict_trial

    place = open_device(device, threads)
    predicted, notes = {}, list(recordings.notes)
    for trial in trials:
        with bars(f"predicting {trial.name}", "folds") if bars else nullcontext() as progress:
            table, said = predict_trial(trial, recordings, place, progress)
        predicted[trial.name] = table
        notes += said
    return predicted, tuple(notes)


def _check_given(blend: StoredBlend, given: Mapping[str, Path]) -> None:
    names = [member.name for member in blend.members]
    for name in given:
        if name not in names:
            raise ConfigError(
                "predictions must be of a member of the blend",
                got=name,
                fix=f"Members: {', '.join(names)}.",
            )
    lacking = [m.name for m in blend.needed() if m.keys is None and m.name not in given]
    if lacking:
        raise PredictionError(
            "a member whose fold models are not known needs predictions of the new rows",
            got=f"none for {', '.join(lacking)}",
            fix=f"Give them: --predictions {lacking[0]}=FILE (eeg_id and six probabilities).",
        )


def _unneeded_note(blend: StoredBlend) -> tuple[str, ...]:
    n_all = len(blend.members)
    n_unneeded = n_all - len(blend.needed())
    if not n_unneeded:
        return ()
    return (f"{n_unneeded} of {n_all} members have weight 0 and are not predicted",)


def _even(n_models: int, n_rows: int) -> Array:
    """Equal shares, in the place of what a pool does not look at."""
    return np.full((n_models, n_rows, N_CLASSES), 1 / N_CLASSES)


def _given(path: Path, eeg_ids: list[int]) -> Array:
    """Given predictions (n, 6) in the order of the submission."""
    table = read_predictions(path)
    ordered = make_submission(eeg_ids, table["eeg_id"], probabilities_in(table), path)
    return probabilities_in(ordered)
