"""Predictions of several trials' fold models; torch is imported late."""

from __future__ import annotations

from hms_ray.dataset.prepare import Bars
from hms_ray.evaluate.metric import Array
from hms_ray.predict.recordings import Recordings
from hms_ray.predict.trial import TrialModels


def require_device(device: str | None, threads: int) -> None:
    """Refuses a device that is not there before recordings are packed; as ``open_device``."""
    from hms_ray.predict.models import open_device

    open_device(device, threads)


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
