"""Predictions of the recordings of ``test.csv`` as submissions, with their time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hms_ray.display.live import bar
from hms_ray.predict.inference import predict_all, require_device
from hms_ray.predict.rate import RunTimes
from hms_ray.predict.recordings import read_test_rows, recordings_of_test
from hms_ray.predict.submission import make_submission, submission_ids
from hms_ray.predict.trial import TrialModels


@dataclass(frozen=True)
class PredictedTestSet:
    """Predictions of a test set.

    Attributes:
        submissions: name of the trial -> its submission.
        notes: of recordings and models, lines to print.
        rate: measured time and estimate, a line to print.
    """

    submissions: Mapping[str, pd.DataFrame]
    notes: tuple[str, ...]
    rate: str


def eegs_to_submit(data_dir: Path) -> list[int]:
    """The EEGs of the submission for a folder's ``test.csv``; no recording is read.

    Raises:
        DataError: see ``read_test_rows`` and ``submission_ids``.
    """
    return submission_ids(data_dir, read_test_rows(data_dir)["eeg_id"].tolist())


def predict_test_set(
    trials: list[TrialModels],
    eeg_ids: Sequence[int],
    data_dir: Path,
    *,
    pack_dir: Path | None,
    device: str | None,
    threads: int,
) -> PredictedTestSet:
    """Packs the recordings once and predicts them with the models of all trials.

    Args:
        trials: at least one, with unique names.
        eeg_ids: EEGs of the submission, see ``eegs_to_submit``.
        data_dir: competition folder.
        pack_dir: see ``recordings_of_test``.
        device: see ``open_device``.
        threads: see ``open_device``.

    Raises:
        ConfigError, DataError, StudyError: see ``recordings_of_test`` and ``predict_all``.
    """
    require_device(device, threads)
    for trial in trials:
        trial.require_code()
    times, started = RunTimes(), time.perf_counter()
    inputs = [trial.experiment.joint_input for trial in trials]
    recordings = recordings_of_test(data_dir, inputs, pack_dir=pack_dir, bars=bar)
    packed = time.perf_counter()
    predicted, notes = predict_all(trials, recordings, device, threads, times)
    times.packing_s = packed - started
    times.rows_s = time.perf_counter() - packed - times.models_s
    ids = recordings.rows["eeg_id"]
    return PredictedTestSet(
        {name: make_submission(eeg_ids, ids, table) for name, table in predicted.items()},
        notes,
        times.text(len(ids)),
    )
