"""A blend that was fitted on out-of-fold predictions, applied to test recordings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.blend.stored import StoredBlend, even_shares, read_blend
from hms_ray.dataset.prepare import Bars
from hms_ray.errors import ConfigError, PredictionError, StudyError
from hms_ray.evaluate.metric import Array
from hms_ray.predict.files import read_predictions
from hms_ray.predict.inference import predict_all, require_device
from hms_ray.predict.recordings import read_test_rows, recordings_of_test
from hms_ray.predict.submission import make_submission, probabilities_in, submission_ids
from hms_ray.predict.trial import TrialModels, read_models


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
        _models(member.name, member.keys, results)
        for member in blend.needed()
        if member.name not in given and member.keys is not None
    ]
    notes = _unneeded_note(blend)
    if models:
        require_device(device, threads)
        inputs = [trial.experiment.input for trial in models]
        recordings = recordings_of_test(data_dir, inputs, pack_dir=pack_dir, bars=bars)
        predicted, said = predict_all(models, recordings, device, threads, bars)
        notes += said
        found = recordings.rows["eeg_id"]
        for name, table in predicted.items():
            parts[name] = probabilities_in(make_submission(eeg_ids, found, table))
    (unneeded,) = even_shares(1, len(eeg_ids))
    stack = np.stack([parts.get(member.name, unneeded) for member in blend.members])
    submission = make_submission(eeg_ids, eeg_ids, blend.pool.predict(stack))
    return Applied(submission, eeg_ids, notes)


def _models(name: str, keys: Mapping[int, str], results: str | Path) -> TrialModels:
    """As ``read_models``; errors name the member and say what else can be done."""
    try:
        return read_models(name, keys, results)
    except StudyError as error:
        other = f"give its predictions: --predictions {name}=FILE."
        raise StudyError(
            error.rule,
            got=error.got,
            where=f"{error.where}, member {name}" if error.where != name else f"member {name}",
            fix=f"G{other[1:]}" if error.fix is None else f"{error.fix} Or {other}",
        ) from None


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


def _given(path: Path, eeg_ids: list[int]) -> Array:
    """Given predictions (n, 6) in the order of the submission."""
    table = read_predictions(path)
    ordered = make_submission(eeg_ids, table["eeg_id"], probabilities_in(table), path)
    return probabilities_in(ordered)
