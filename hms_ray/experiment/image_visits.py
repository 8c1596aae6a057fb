"""How much a fold trains and scores, from labels alone.

An image visit is one training image in one epoch.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.experiment import Experiment
from hms_ray.train.stage_rows import belongs_to


def stage_rows_of(experiment: Experiment, rows: pd.DataFrame, fold: int) -> list[int]:
    """Training rows of each stage of a fold.

    Args:
        experiment: what is trained.
        rows: training rows with ``fold``, ``total_votes`` and targets.
        fold: the validation fold.
    """
    train = rows[rows["fold"] != fold]
    votes, targets = train["total_votes"].to_numpy(), train[list(TARGET_COLUMNS)].to_numpy()
    return [
        int(np.count_nonzero(belongs_to(stage, votes, targets)))
        for stage in experiment.training.resolved_stages()
    ]


def stage_visits(experiment: Experiment, rows: pd.DataFrame, fold: int) -> list[int]:
    """Image visits of each stage of a fold; see ``stage_rows_of``."""
    counts = stage_rows_of(experiment, rows, fold)
    stages = experiment.training.resolved_stages()
    return [stage.epochs * count for stage, count in zip(stages, counts, strict=True)]


def experiment_visits(experiment: Experiment, rows: pd.DataFrame) -> int:
    """Image visits of all folds and stages of an experiment; see ``stage_rows_of``."""
    return sum(sum(stage_visits(experiment, rows, fold)) for fold in sorted(set(rows["fold"])))


def scored_images(experiment: Experiment, rows: pd.DataFrame, fold: int) -> int:
    """Validation rows that a fold scores: all of them, twice per epoch.

    Once per epoch if the epoch is a single batch; see ``train_fold``. A row with several variants
    (``prediction``) counts once.
    """
    n_valid = int(np.count_nonzero(rows["fold"] == fold))
    counts = stage_rows_of(experiment, rows, fold)
    return n_valid * sum(
        stage.epochs * (1 if count <= experiment.training.batch_size else 2)
        for stage, count in zip(experiment.training.resolved_stages(), counts, strict=True)
    )
