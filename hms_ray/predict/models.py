"""Inference with fold models; the only module of this package that imports torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from hms_ray.config.experiment import Experiment
from hms_ray.config.inputs import used_sources
from hms_ray.dataset.prepare import open_prepared
from hms_ray.dataset.sources import source_key
from hms_ray.errors import ConfigError, ModelError, TrainingError
from hms_ray.evaluate.metric import Array
from hms_ray.experiment.fold_data import locate_rows
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.predict.rate import RunTimes
from hms_ray.predict.recordings import Recordings
from hms_ray.predict.trial import FoldModel, TrialModels, mean_of_folds
from hms_ray.storage.fold_store import RECORD_FILE, StoredFold, damaged_fold
from hms_ray.train.checkpoint import load_weights
from hms_ray.train.device_memory import device_memory
from hms_ray.train.downsampled import cache_budget
from hms_ray.train.images import Images
from hms_ray.train.model import build_model
from hms_ray.train.process import Process
from hms_ray.train.score import (
    Precision,
    check_finite,
    has_bfloat16,
    predict_rows,
    storage_dtype,
)
from hms_ray.train.seeds import own_torch_generator
from hms_ray.train.torch_settings import torch_settings, torch_threads
from hms_ray.train.windows import open_sources

DEVICES: Final = ("cpu", "cuda")
_FIX: Final = "End other processes on the GPU, or use --device cpu."

Progress = Callable[[int, int], None]


def open_device(name: str | None = None, threads: int = 1) -> torch.device:
    """The device of inference.

    Args:
        name: ``cpu`` or ``cuda``; default: cuda if available.
        threads: torch threads to predict with, at least 1.

    Raises:
        ConfigError: if the name is unknown, CUDA is not available or threads are below 1.
    """
    if threads < 1:
        raise ConfigError("threads must be at least 1", got=threads)
    if name is not None and name not in DEVICES:
        raise ConfigError(f"a device must be one of {', '.join(DEVICES)}", got=name)
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ConfigError("CUDA requested but not available", fix="Use --device cpu.")
    return torch.device(name or ("cuda" if has_cuda else "cpu"))


class Predictor:
    """Predicts rows with fold models of one experiment.

    Windows are opened, and downsampled ones cached, once for all folds. The code is the one
    that scored the validation rows in training.

    Attributes:
        models_s: seconds spent so far on building models and reading their weights.
    """

    def __init__(
        self, experiment: Experiment, recordings: Recordings, device: torch.device
    ) -> None:
        packs = recordings.packs_of(experiment.joint_input)
        self.sources = locate_rows(packs, recordings.rows)
        self._experiment, self._n_rows = experiment, len(recordings.rows)
        self._process = Process(device=device)
        with device_memory("the recordings to predict", _FIX):
            self._windows = open_sources(packs, device)
        self._images: dict[torch.dtype, Images] = {}
        self.models_s = 0.0

    def predict(self, fold: FoldModel, rows: NDArray[np.int64] | None = None) -> Array:
        """Class probabilities by one fold's model.

        Args:
            fold: of this experiment.
            rows: (n,) positions in the recordings' rows; default: all.

        Returns:
            (n, 6) float64. For the validation rows of the fold these equal its stored
            out-of-fold predictions, bit for bit on one machine.

        Raises:
            StudyError: if weights or normalisation do not match the experiment.
            TrainingError: if a prediction is not finite or the device's memory is full.
        """
        if rows is None:
            rows = np.arange(self._n_rows, dtype=np.int64)
        settings = torch_settings(deterministic=self._experiment.training.deterministic)
        with settings, device_memory(f"the fold stored in {fold.weights.parent}", _FIX):
            return self._predict(fold, rows)

    def _predict(self, fold: FoldModel, rows: NDArray[np.int64]) -> Array:
        precision = precision_on(fold.record["precision"], self._process.device)
        images, device = self._images_in(storage_dtype(precision)), self._process.device
        folder = fold.weights.parent
        try:
            images.load_normalisation(fold.record["normalisation"])
        except TrainingError as error:
            raise damaged_fold(folder, f"{RECORD_FILE}: {error}") from None
        started = time.perf_counter()
        # All weights are those of the fold: none are read from a hub or a file.
        with own_torch_generator(device):
            config = self._experiment.model.without_weights()
            model = build_model(config, images.size, images.n_channels)
        try:
            model.load_state_dict(load_weights(fold.weights))
        except (ModelError, RuntimeError):
            raise damaged_fold(
                folder, f"{fold.weights.name} does not match the experiment"
            ) from None
        model = model.to(device, storage_dtype(precision)).to(memory_format=torch.channels_last)
        self.models_s += time.perf_counter() - started
        size, variants = self._experiment.training.batch_size, self._experiment.prediction.variants
        table = predict_rows(model, images, rows, size, precision, self._process, variants)
        check_finite(table, f"the fold stored in {folder}")
        return table

    def _images_in(self, dtype: torch.dtype) -> Images:
        if dtype not in self._images:
            device = self._process.device
            self._images[dtype] = Images(
                self,
                self._windows,
                self._experiment.joint_input,
                dtype,
                cache_budget(device),
                self._experiment.branch_inputs,
            )
        return self._images[dtype]


def predict_task(
    task: FoldTask, stored: StoredFold, *, device: str | None = None, threads: int = 1
) -> Array:
    """Predicts the validation rows of a fold by its stored model.

    Args:
        task: the fold.
        stored: its result.
        device: see ``open_device``.
        threads: see ``open_device``.

    Returns:
        (n, 6) float64 in the order of the rows; see ``Predictor.predict``.
    """
    rows = task.prepared.rows()
    experiment = task.experiment
    inputs, label_rows = experiment.joint_input, experiment.training.draws_label_rows
    refs, used = task.prepared.packs_of(inputs, label_rows=label_rows), used_sources(inputs)
    packs = {source_key(name, used[name]): open_prepared(ref) for name, ref in refs.items()}
    place = open_device(device, threads)
    with torch_threads(threads):
        predictor = Predictor(task.experiment, Recordings(rows, packs), place)
        return predictor.predict(stored, np.flatnonzero(rows["fold"] == task.fold))


def precision_on(stored: Precision, device: torch.device) -> Precision:
    """The precision of training, or float32 if the device does not have it natively.

    Emulated bfloat16 would be slower and no more accurate; float16 could overflow.
    """
    natively = {"bfloat16": has_bfloat16(device), "float16": device.type == "cuda"}
    return stored if natively.get(stored, True) else "float32"


def predict_trial(
    models: TrialModels,
    recordings: Recordings,
    device: torch.device,
    progress: Progress | None = None,
    times: RunTimes | None = None,
) -> tuple[Array, tuple[str, ...]]:
    """Probabilities of recordings, (n, 6) float64, averaged over a trial's folds; and notes.

    Arguments and errors are those of ``predict_folds``.
    """
    by_fold, notes = predict_folds(models, recordings, device, progress, times)
    return mean_of_folds(by_fold), notes


def predict_folds(
    models: TrialModels,
    recordings: Recordings,
    device: torch.device,
    progress: Progress | None = None,
    times: RunTimes | None = None,
) -> tuple[dict[int, Array], tuple[str, ...]]:
    """Probabilities of recordings by each of a trial's fold models.

    Args:
        models: the folds.
        recordings: rows, with packs of all sources of the experiment.
        device: of windows and models.
        progress: called with (folds done, number of folds).
        times: the time to build the models is added to it.

    Returns:
        Fold -> (n, 6) float64; and notes to print.

    Raises:
        StudyError: if a fold is damaged, or see ``TrialModels.require_code``.
        PackError: if a window is not in its pack.
        TrainingError: if a prediction is not finite.
    """
    models.require_code()
    predictor = Predictor(models.experiment, recordings, device)
    by_fold: dict[int, Array] = {}
    for number, fold in models.folds.items():
        if progress is not None:
            progress(len(by_fold), len(models.folds))
        by_fold[number] = predictor.predict(fold)
    if progress is not None:
        progress(len(by_fold), len(models.folds))
    if times is not None:
        times.models_s += predictor.models_s
    return by_fold, (*models.notes(), *_precision_notes(models, device))


def _precision_notes(models: TrialModels, device: torch.device) -> tuple[str, ...]:
    trained = {fold.record["precision"] for fold in models.folds.values()}
    return tuple(
        f"{models.name}: trained in {precision}, predicted in float32: {device.type} has no "
        f"native {precision}"
        for precision in sorted(trained)
        if precision_on(precision, device) != precision
    )
