"""A few batches of one fold with every part of training, for a debugger; nothing is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.experiment import Experiment
from hms_ray.config.training import ResolvedStage, TrainingConfig
from hms_ray.dataset.prepare import Prepared
from hms_ray.evaluate.metric import named_scores
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.run import plan_folds
from hms_ray.storage.fold_store import FoldStore, StoredFold
from hms_ray.storage.hashing import digest
from hms_ray.text import counted
from hms_ray.train.selection import kept_record
from hms_ray.train.stage_rows import belongs_to, criterion_rows

SCORED_ROWS: Final = 64
"""Validation rows per batch of the limit: evaluations use batches of this size or larger."""

Mask = NDArray[np.bool_]


Predict = Callable[[FoldTask, StoredFold], NDArray[np.float64]]
"""(n, 6) probabilities of the validation rows of a task, by the weights of its result."""


def train_limited(
    experiment: Experiment,
    prepared: Prepared,
    runner: InProcessRunner,
    predict: Predict,
    fold: int,
    limit: int,
) -> list[tuple[str, str]]:
    """Trains a few batches of a fold, with everything that a whole fold uses.

    Packs, stages, augmentation, evaluations, the fold store and predictions by the weights that
    it gives back. The store is in a temporary folder.

    Args:
        experiment: what to train.
        prepared: rows, folds and packs.
        runner: trains in this process.
        predict: as ``submit`` does.
        fold: validation fold.
        limit: batches per epoch, at least 1; for the number of epochs see ``shortened``.

    Returns:
        What was used, and the details of it.

    Raises:
        HmsRayError: those of ``run_task``.
    """
    training = shortened(experiment.training)
    experiment = experiment.model_copy(update={"training": training})
    with tempfile.TemporaryDirectory(prefix="hms-ray-limit-") as folder:
        rows = limited_rows(prepared.rows(), training, fold, limit)
        rows_file = Path(folder) / "rows.parquet"
        rows.to_parquet(rows_file, index=False)
        # Results of other rows have other keys, also where someone looks into the folder.
        name = digest([prepared.rows_fingerprint, fold, limit])
        prepared = replace(prepared, rows_file=rows_file, rows_fingerprint=name)
        (task,) = plan_folds(experiment, prepared, folder, runner.placement, [fold])
        runner.run([task], lambda record: None)
        stored = FoldStore(folder).read(task.key)
        again = predict(task, stored)
        far = float(np.abs(again - probabilities_of(stored.oof)).max())
        size_mb = stored.weights.stat().st_size / 1e6
        history, timing = stored.record["history"], stored.record["timing"]
        scored = f"{counted(len(stored.oof), 'row')}, {counted(len(history), 'time')}"
        return [
            ("packs", ", ".join(experiment.sources)),
            ("training", f"{_listed_stages(training, history)}; {timing['train_s']:.1f} s"),
            ("augmentation", ", ".join(_augmentations(training)) or "none"),
            ("evaluation", f"{scored}; {named_scores(kept_record(history))}"),
            (
                "checkpoint",
                f"after each evaluation; weights of {size_mb:.1f} MB, written and read",
            ),
            (
                "prediction",
                f"{counted(len(again), 'row')} by the stored weights, "
                + (f"up to {far:.1e} from" if far else "equal to")
                + " the evaluation",
            ),
        ]


def shortened(training: TrainingConfig) -> TrainingConfig:
    """Stages of one epoch; of two if mosaic applies in the first epochs of a stage only."""
    stages = []
    for stage, resolved in zip(training.stages, training.resolved_stages(), strict=True):
        augment, epochs = resolved.augment, 1
        if (mosaic := augment.mosaic) is not None and not resolved.has_mosaic(stage.epochs - 1):
            once = mosaic.model_copy(update={"epochs": 1})
            augment, epochs = augment.model_copy(update={"mosaic": once}), 2
        stages.append(stage.model_copy(update={"epochs": epochs, "augment": augment}))
    return training.model_copy(update={"stages": tuple(stages)})


def limited_rows(
    rows: pd.DataFrame, training: TrainingConfig, fold: int, limit: int
) -> pd.DataFrame:
    """Some rows of a fold, with which every stage has at most ``limit`` batches per epoch.

    Args:
        rows: training rows with their folds.
        training: batch size and stages.
        fold: validation fold.
        limit: at least 1.

    Returns:
        A part of ``rows`` in their order. Every stage has training rows, and validation rows
        to choose its best evaluation by.

    Raises:
        ConfigError: see ``criterion_rows``.
    """
    votes, targets = rows["total_votes"].to_numpy(), rows[list(TARGET_COLUMNS)].to_numpy()
    valid = rows["fold"].to_numpy() == fold
    stages = training.resolved_stages()
    train_rules = [~valid & belongs_to(stage, votes, targets) for stage in stages]
    valid_rules = [_criterion(stage, votes, targets, valid, fold) for stage in stages]
    kept = _spread(train_rules, limit * training.batch_size)
    kept |= _spread([valid, *valid_rules], limit * SCORED_ROWS)
    return rows[kept].reset_index(drop=True)


def _criterion(
    stage: ResolvedStage, votes: NDArray[Any], targets: NDArray[Any], valid: Mask, fold: int
) -> Mask:
    mask, places = np.zeros_like(valid), np.flatnonzero(valid)
    mask[places[criterion_rows(stage, votes[valid], targets[valid], fold)]] = True
    return mask


def _spread(rules: Sequence[Mask], n_rows: int) -> Mask:
    """Rows of which each rule has about ``n_rows``, at most, and at least one."""
    different = np.stack(list({rule.tobytes(): rule for rule in rules}.values()))
    kept: Mask = np.zeros(different.shape[1], dtype=bool)
    for rule in different:
        # The part that is left to a rule if another one selects all rows.
        places = np.flatnonzero(rule)
        n = min(max(n_rows // len(different), 1), len(places))
        kept[places[np.linspace(0, len(places) - 1, n).astype(np.int64)]] = True
    counts = (different & kept).sum(1)
    for place in np.random.default_rng(0).permutation(len(kept)):
        selected = different[:, place]
        if not kept[place] and selected.any() and (counts[selected] < n_rows).all():
            kept[place] = True
            counts += selected
    return kept


def _listed_stages(training: TrainingConfig, history: Sequence[dict[str, Any]]) -> str:
    """Stages with their optimiser steps."""
    before, texts = 0, []
    for index, stage in enumerate(training.stages):
        done = max(record["step"] for record in history if record["stage_index"] == index)
        texts.append(f"stage {stage.name}, {counted(done - before, 'step')}")
        before = done
    return "; ".join(texts)


def _augmentations(training: TrainingConfig) -> list[str]:
    """Names of all augmentations that some stage has."""
    named: dict[str, None] = {}
    for stage in training.resolved_stages():
        named |= dict.fromkeys(name for name, value in stage.augment if value)
    return list(named)
