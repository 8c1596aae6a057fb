"""Predictions of several trials' fold models; torch is imported late."""

from __future__ import annotations

from hms_ray.dataset.prepare import Bars
from hms_ray.evaluate.metric import Array
from hms_ray.predict.recordings import Recordings
from hms_ray.predict.trial import TrialModels


def require_device(device: str | None, threads: int) -> None:
    """Refuses an unavailable device before recordings are packed; see ``open_device``."""
    from hms_ray.predict.models import open_device

    open_device(device, threads)


def predict_all(
    trials: list[TrialModels],
    recordings: Recordings,
    device: str | None,
    threads: int,
    bars: Bars | None,
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Probabilities by the models of several trials, and notes to print.

    Args:
        trials: with unique names.
        recordings: rows, with packs of all sources of the trials.
        device: see ``open_device``.
        threads: see ``open_device``.
        bars: creates the progress bar of each trial.

    Returns:
        Name -> (n, 6) float64; and the notes of recordings and models.

    Raises:
        ConfigError: see ``open_device``.
        StudyError: see ``predict_trial``.
    """
    # Imports torch, which blending given predictions does not need.
    from contextlib import nullcontext

    from hms_ray.predict.models import open_device, predict_trial

    place = open_device(device, threads)
    predicted: dict[str, Array] = {}
    notes = list(recordings.notes)
    for trial in trials:
        with bars(f"predicting {trial.name}", "folds") if bars else nullcontext() as progress:
            predicted[trial.name], trial_notes = predict_trial(trial, recordings, place, progress)
        notes += trial_notes
    return predicted, tuple(notes)
