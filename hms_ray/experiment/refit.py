"""A refit: one experiment trained on all rows, as long as cross-validation chose. No score."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hms_ray.config.experiment import Experiment
from hms_ray.config.values import replace_values
from hms_ray.dataset.prepare import Prepared
from hms_ray.experiment.cache_key import cache_key_inputs
from hms_ray.experiment.fold_task import REFIT, FoldTask
from hms_ray.experiment.placement import Placement
from hms_ray.storage.hashing import digest
from hms_ray.train.selection import kept_record

History = Sequence[Mapping[str, Any]]
"""Records of ``train_fold``."""


def kept_epochs(history: History) -> list[float]:
    """Epochs after which each stage of a fold was kept, such as 2.5."""
    stages = sorted({int(record["stage_index"]) for record in history})
    return [
        float(kept_record([one for one in history if one["stage_index"] == stage])["epoch"])
        for stage in stages
    ]


def refit_epochs(histories: Sequence[History]) -> tuple[float, ...]:
    """Epochs of each stage of a refit: the median of the folds', rounded up to half an epoch.

    Of a stage that ends with its last evaluation, that is the configured number.

    Args:
        histories: of all folds of one experiment.
    """
    by_stage = zip(*map(kept_epochs, histories), strict=True)
    return tuple(math.ceil(2 * statistics.median(epochs)) / 2 for epochs in by_stage)


def refit_task(
    experiment: Experiment,
    prepared: Prepared,
    results: Path,
    placement: Placement,
    epochs: Sequence[float],
) -> FoldTask:
    """The training of an experiment on all rows of ``prepared``.

    Its place among the folds is after the last one: no fold has its seeds.

    Args:
        experiment: what to train.
        prepared: rows and packs.
        results: folder of the fold store.
        placement: where it is trained.
        epochs: of each stage, see ``refit_epochs``.

    Raises:
        ModelError: if pretrained weights cannot be found, downloaded or read.
    """
    precision = placement.precision(experiment)
    resolved = replace_values(experiment, {"training.precision": precision}, "experiment")
    fold = prepared.n_folds
    key_inputs = cache_key_inputs(experiment, prepared, fold, placement)
    key_inputs[REFIT] = list(epochs)
    return FoldTask(
        resolved,
        fold,
        digest(key_inputs),
        prepared,
        results,
        key_inputs,
        epochs=tuple(epochs),
    )
