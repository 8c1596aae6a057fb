"""Which folds of a ladder to train, each once, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.space import Space
from hms_ray.dataset.prepare import Prepared
from hms_ray.dataset.sources import SourceRecipe, experiment_sources, source_key
from hms_ray.errors import ConfigError, HmsRayError
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.experiment.placement import DeviceClass, Placement
from hms_ray.experiment.preflight import image_sizes_of, preflight
from hms_ray.experiment.run import plan_folds
from hms_ray.ladder.steps import Ladder
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.hashing import digest
from hms_ray.train.model_images import each_size
from hms_ray.train.stage_rows import belongs_to

_SCORED_PER_EPOCH = 2
_SCORING_COST = 1 / 3
"""Scoring costs a forward pass, training a forward and a backward pass."""


@dataclass(frozen=True)
class LadderPlan:
    """All folds of a ladder, and the missing ones.

    Attributes:
        tasks: step -> its folds; equal experiments have folds with equal cache keys.
        missing: folds that the fold store does not have, each once, under its first
            step; in units of folds that share their first stage, which are
            trained one after the other.
        costs: cache key of a missing fold -> estimated work.
        failed: step -> why it cannot be trained.
    """

    tasks: dict[str, list[FoldTask]]
    missing: list[list[FoldTask]]
    costs: dict[str, float]
    failed: dict[str, str]

    @property
    def n_missing(self) -> int:
        """Number of missing folds."""
        return sum(len(unit) for unit in self.missing)

    @property
    def n_stored(self) -> int:
        """Different folds that the fold store has."""
        keys = {task.key for tasks in self.tasks.values() for task in tasks}
        return len(keys) - self.n_missing

    def by_cost(self) -> list[list[FoldTask]]:
        """The missing units, the most expensive first: groups then finish at about one time."""
        return sorted(self.missing, key=lambda unit: -sum(self.costs[task.key] for task in unit))


def plan_ladder(
    ladder: Ladder, prepared: Prepared, results: str | Path, placement: Placement
) -> LadderPlan:
    """Plans all folds of a ladder's experiments.

    Args:
        ladder: its experiments.
        prepared: rows, folds and packs of all of them.
        results: folder of the fold store.
        placement: where folds are trained.
    """
    store = FoldStore(results)
    plan = LadderPlan({}, [], {}, {})
    units: dict[str, list[FoldTask]] = {}
    known: set[str] = set()
    for name, experiment in ladder.experiments().items():
        try:
            tasks = plan_folds(experiment, prepared, results, placement)
            new = [task for task in tasks if task.key not in known and store.find(task.key) is None]
        except HmsRayError as error:
            plan.failed[name] = str(error)
            continue
        plan.tasks[name] = tasks
        known |= {task.key for task in new}
        cost = _cost(experiment, prepared) if new else 0.0
        for task in new:
            plan.costs[task.key] = cost
            units.setdefault(f"{_first_stage_key(experiment)}-{task.fold}", []).append(task)
    plan.missing.extend(units.values())
    return plan


def check_steps(
    ladder: Ladder, rows: pd.DataFrame, device_class: DeviceClass | None = None
) -> None:
    """Checks, before recordings are read, that every experiment of a ladder can be trained.

    Args:
        ladder: the steps.
        rows: training rows with their folds, see ``dataset.prepare.RowsCheck``.
        device_class: where it will be trained, if that is known.

    Raises:
        ConfigError: naming every step that cannot be trained, and why.
    """
    failed: dict[str, HmsRayError] = {}
    for name, experiment in ladder.experiments().items():
        try:
            preflight(Space(experiment=experiment), rows, device_class)
        except HmsRayError as error:
            failed[name] = error
    if failed:
        raise ConfigError(
            "every step of a ladder must be trainable",
            got="; ".join(f"{name}: {error}".rstrip(".") for name, error in failed.items()),
            fix="Mend them, or run the others with --steps.",
        )


def _first_stage_key(experiment: Experiment) -> str:
    """Digest of the part of an experiment that its first stage depends on."""
    described = canonical(experiment)
    described["training"]["stages"] = described["training"]["stages"][:1]
    return digest(described)


def _cost(experiment: Experiment, prepared: Prepared) -> float:
    """Work of a fold, in pixels that are trained on."""
    rows = prepared.rows()
    votes, targets = rows["total_votes"].to_numpy(), rows[list(TARGET_COLUMNS)].to_numpy()
    n_pixels = sum(height * width for height, width in each_size(image_sizes_of(experiment)))
    share = 1 / prepared.n_folds
    per_scored = _SCORED_PER_EPOCH * _SCORING_COST * len(experiment.prediction.variants)
    images = 0.0
    for stage in experiment.training.resolved_stages():
        trained = np.count_nonzero(belongs_to(stage, votes, targets)) * (1 - share)
        scored = len(rows) * share * per_scored
        images += stage.epochs * (trained + scored)
    return images * n_pixels


def sources_of(ladder: Ladder) -> list[SourceRecipe]:
    """Every source that an experiment of a ladder reads, each once."""
    found: dict[tuple[str, bool], SourceRecipe] = {}
    for experiment in ladder.experiments().values():
        for source in experiment_sources(experiment):
            found.setdefault((source_key(*source), source.label_rows), source)
    return list(found.values())
