"""Predictions by the fold models of several trials.

torch is imported in the functions: a blend of given predictions does not need it.
"""

from __future__ import annotations

from hms_ray.display.live import bar
from hms_ray.evaluate.metric import Array
from hms_ray.predict.rate import RunTimes
from hms_ray.predict.recordings import Recordings
from hms_ray.predict.trial import TrialModels, mean_of_folds


def require_device(device: str | None, threads: int) -> None:
    """Refuses an unavailable device before recordings are packed; see ``open_device``."""
    from hms_ray.predict.models import open_device

    open_device(device, threads)


def predict_all(
    trials: list[TrialModels],
    recordings: Recordings,
    device: str | None,
    threads: int,
    times: RunTimes | None = None,
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Predicts recordings with the mean of each trial's fold models.

    Arguments, notes and errors are those of ``predict_all_folds``.

    Returns:
        Name of the trial -> probabilities, (n, 6) float64; and notes to print.
    """
    by_fold, notes = predict_all_folds(trials, recordings, device, threads, times)
    return {name: mean_of_folds(folds) for name, folds in by_fold.items()}, notes


def predict_all_folds(
    trials: list[TrialModels],
    recordings: Recordings,
    device: str | None,
    threads: int,
    times: RunTimes | None = None,
) -> tuple[dict[str, dict[int, Array]], tuple[str, ...]]:
    """Predicts recordings with every fold model of several trials.

    Args:
        trials: with unique names.
        recordings: rows, with packs of all sources of the trials.
        device: see ``open_device``.
        threads: see ``open_device``.
        times: see ``predict_folds``.

    Returns:
        Name of the trial -> fold -> probabilities, (n, 6) float64; and notes to print, of
        recordings and models.

    Raises:
        ConfigError: see ``open_device``.
        StudyError: see ``predict_folds``.
    """
    from hms_ray.predict.models import open_device, predict_folds
    from hms_ray.train.torch_settings import torch_threads

    place = open_device(device, threads)
    predicted: dict[str, dict[int, Array]] = {}
    notes = list(recordings.notes)
    for trial in trials:
        with bar(f"predicting {trial.name}", "folds") as progress, torch_threads(threads):
            predicted[trial.name], trial_notes = predict_folds(
                trial, recordings, place, progress, times
            )
        notes += trial_notes
    return predicted, tuple(notes)
