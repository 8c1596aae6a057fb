"""From measured speeds to seconds of a fold, and of the mean trial of a space."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.experiment import Experiment
from hms_ray.config.space import ResourcesConfig
from hms_ray.experiment.bench import Variant
from hms_ray.experiment.image_visits import scored_images
from hms_ray.train.stage_rows import belongs_to

if TYPE_CHECKING:
    from hms_ray.train.fold_speed import FoldSpeed

Pick = Callable[[Sequence[float]], float]
"""One value of several repetitions: the median, or the smallest or largest one."""


_DEFAULT: Final = ResourcesConfig()


def checkpoint_weights(experiment: Experiment) -> int:
    """Size of a checkpoint, in weights of the model.

    The model, two moments of its optimiser, the best model and, with ``ema``, its average.
    """
    return 4 if experiment.training.ema is None else 5


@dataclass(frozen=True)
class FoldSeconds:
    """Estimated seconds of one fold.

    Attributes:
        prepare_s: rows, model, packs and fitted normalisations.
        train_s: steps, images included.
        score_s: evaluations.
        store_s: results and checkpoints.
    """

    prepare_s: float
    train_s: float
    score_s: float
    store_s: float

    @property
    def total_s(self) -> float:
        """All of them."""
        return self.prepare_s + self.train_s + self.score_s + self.store_s


def fold_seconds(
    experiment: Experiment,
    speed: FoldSpeed,
    rows: pd.DataFrame,
    fold: int,
    workers: int = 1,
    pick: Pick = statistics.median,
    resources: ResourcesConfig = _DEFAULT,
) -> FoldSeconds:
    """Estimated seconds of a fold in one worker group.

    A row's windows are read anew in each epoch, unless they fit into the cache of the process.
    Each rank has its own cache and reads the rows that it has not had: of ``W`` ranks the share
    ``(1 - 1/W) ** epoch``.

    Args:
        experiment: what is trained; of the same ``Variant.speed_key`` as the measured one.
        speed: measured.
        rows: training rows with ``fold``, ``total_votes`` and targets.
        fold: number of the validation fold.
        workers: ranks of the group.
        pick: which repetition counts.
        resources: decide which stages are stored and how often checkpoints are written.
    """
    train = rows[rows["fold"] != fold]
    votes, targets = train["total_votes"].to_numpy(), train[list(TARGET_COLUMNS)].to_numpy()
    cached = min(1.0, speed.n_cached / len(rows))
    seen = np.zeros(len(train), dtype=bool)
    train_s = 0.0
    for index, stage in enumerate(experiment.training.resolved_stages()):
        member = belongs_to(stage, votes, targets)
        n = int(np.count_nonzero(member))
        new = np.count_nonzero(member & ~seen) / max(n, 1)
        seen |= member
        for epoch in range(stage.epochs):
            kind = speed.epochs[index, stage.has_mosaic(epoch)]
            first, later = _by_pass(kind.first_s, kind.later_s, pick, speed.n_cached)
            read = 1 - cached + cached * new * (1 - 1 / workers) ** epoch
            train_s += n * (kind.draw_s + later + read * (first - later))
    first, later = _by_pass(speed.scoring_first_s, speed.scoring_later_s, pick, speed.n_cached)
    n_valid = int(np.count_nonzero(rows["fold"] == fold))
    n_scored = scored_images(experiment, rows, fold)
    read_anew = n_valid * cached + n_scored * (1 - cached)
    score_s = n_scored * later + read_anew * (first - later)
    n_evaluations = n_scored // n_valid
    train_s += n_evaluations * pick(speed.restart_s)
    n_written = len(experiment.training.stages) if resources.share_stages else 1
    every_s, n_checkpoints = resources.checkpoint_every_s, 0.0
    if every_s is not None:
        # The last evaluation needs none.
        n_checkpoints = min(n_evaluations - 1, (train_s + score_s) / max(every_s, 1e-9))
    return FoldSeconds(
        prepare_s=speed.prepare_s + pick(speed.fit_s) * len(train),
        train_s=train_s,
        score_s=score_s,
        store_s=speed.save_s * (n_written + checkpoint_weights(experiment) * n_checkpoints),
    )


def _by_pass(
    first: Sequence[float], later: Sequence[float], pick: Pick, n_cached: int
) -> tuple[float, float]:
    """Seconds per image of the first and of later passes; equal without a cache."""
    if not n_cached:
        both = pick([*first, *later])
        return both, both
    return pick(first), pick(later)


def trial_seconds(
    experiment: Experiment,
    speed: FoldSpeed,
    rows: pd.DataFrame,
    workers: int = 1,
    pick: Pick = statistics.median,
    resources: ResourcesConfig = _DEFAULT,
) -> float:
    """Estimated seconds of all folds of an experiment, one after the other."""
    return sum(
        fold_seconds(experiment, speed, rows, fold, workers, pick, resources).total_s
        for fold in sorted(set(rows["fold"].tolist()))
    )


def mean_trial_seconds(every: Sequence[Variant], seconds: Mapping[str, float]) -> float:
    """Seconds of the mean trial of a space.

    The experiment's seconds times, for each searched path, the mean over its values of the ratio
    to the experiment: as if values were drawn uniformly and changed the cost independently.

    Args:
        every: the experiment first, then each searched value, see ``variants``.
        seconds: name of a variant -> its trial's seconds; values without are skipped.
    """
    base = seconds[every[0].name]
    total = base
    for path in dict.fromkeys(variant.path for variant in every[1:]):
        ratios = [
            seconds[variant.name] / base
            for variant in every
            if variant.path == path and variant.name in seconds
        ]
        total *= statistics.fmean(ratios) if ratios else 1.0
    return total
