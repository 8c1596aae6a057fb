"""What of a ladder is to be trained, each fold once, and how it is shared out."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.inputs import used_sources
from hms_ray.config.space import Space
from hms_ray.dataset.prepare import Prepared
from hms_ray.dataset.sources import SourceRecipe, source_key
from hms_ray.errors import HmsRayError
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.preflight import image_size_of, preflight
from hms_ray.experiment.run import plan_folds
from hms_ray.ladder.steps import Ladder
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.hashing import digest

_SCORED_PER_EPOCH = 2
_SCORING_COST = 1 / 3
"""Of training on an image: a forward pass against a forward and a backward one."""


@dataclass(frozen=True)
class LadderPlan:
    """Every fold of a ladder, and those that are still to be trained.

    Attributes:
        tasks: step -> its folds; equal experiments have folds of equal keys.
        missing: folds that the store does not hold, each once, under the first step
            that has it; in units that one worker group trains in turn, because they
            begin with the same stage of the same fold.
        costs: key of a missing fold -> its share of the work, as good as it is known.
        failed: step -> why it cannot be trained.
    """

    tasks: dict[str, list[FoldTask]]
    missing: list[list[FoldTask]]
    costs: dict[str, float]
    failed: dict[str, str]

    @property
    def n_missing(self) -> int:
        """Folds to be trained."""
        return sum(len(unit) for unit in self.missing)

    @property
    def n_stored(self) -> int:
        """Different folds that are in the store already."""
        keys = {task.key for tasks in self.tasks.values() for task in tasks}
        return len(keys) - self.n_missing


def plan_ladder(
    ladder: Ladder, prepared: Prepared, results: str | Path, placement: Placement
) -> LadderPlan:
    """Plans all folds of a ladder's experiments.

    Args:
        ladder: its experiments.
        prepared: rows, folds and packs of all of them.
        results: folder whose store is asked.
        placement: where folds are trained.
    """
    store = FoldStore(results)
    plan = LadderPlan({}, [], {}, {})
    units: dict[str, list[FoldTask]] = {}
    known: set[str] = set()
    for name, experiment in ladder.experiments().items():
        try:
            tasks = plan_folds(experiment, prepared, results, placement)
            new = [task for task in tasks if task.key not in known and not store.has(task.key)]
            if new:
                preflight(Space(experiment=experiment), prepared)
        except HmsRayError as error:
            plan.failed[name] = str(error)
            continue
        plan.tasks[name] = tasks
        known |= {task.key for task in new}
        cost = _cost(experiment, prepared) if new else 0.0
        for task in new:
            plan.costs[task.key] = cost
            units.setdefault(f"{_beginning(experiment)}-{task.fold}", []).append(task)
    plan.missing.extend(units.values())
    return plan


def _beginning(experiment: Experiment) -> str:
    """Digest of what of an experiment decides its first stage."""
    described = canonical(experiment)
    del described["training"]["checkpoint"]
    described["training"]["stages"] = described["training"]["stages"][:1]
    return digest(described)


def _cost(experiment: Experiment, prepared: Prepared) -> float:
    """Work of a fold, in pixels that are trained on."""
    from hms_ray.train.stages import stage_rows

    rows = prepared.rows()
    votes, targets = rows["total_votes"].to_numpy(), rows[list(TARGET_COLUMNS)].to_numpy()
    height, width = image_size_of(experiment.input)
    share = 1 / prepared.n_folds
    images = 0.0
    for stage in experiment.training.resolved_stages():
        trained = len(stage_rows(stage, votes, targets)) * (1 - share)
        scored = len(rows) * share * _SCORED_PER_EPOCH * _SCORING_COST
        images += stage.epochs * (trained + scored)
    return images * height * width


def shares(
    units: Sequence[list[FoldTask]], costs: Mapping[str, float], n_groups: int
) -> list[list[FoldTask]]:
    """Units dealt to groups so that all end at about the same time.

    The dearest unit first, each to the group with the least to do; a group trains what
    it got in the order of the units.

    Args:
        units: folds that stay together.
        costs: of each fold, by key.
        n_groups: at least 1.

    Returns:
        At most ``n_groups`` lists, none of them empty.
    """
    work = [sum(costs[task.key] for task in unit) for unit in units]
    loads = [(0.0, group) for group in range(n_groups)]
    dealt: list[list[int]] = [[] for _ in range(n_groups)]
    for number in np.argsort([-amount for amount in work], kind="stable").tolist():
        load, group = heapq.heappop(loads)
        dealt[group].append(number)
        heapq.heappush(loads, (load + work[number], group))
    return [
        [task for number in sorted(numbers) for task in units[number]]
        for numbers in dealt
        if numbers
    ]


def sources_of(ladder: Ladder) -> list[SourceRecipe]:
    """Every source that some experiment of a ladder reads, each once."""
    found: dict[str, SourceRecipe] = {}
    for experiment in ladder.experiments().values():
        for name, recipe in used_sources(experiment.input).items():
            found.setdefault(source_key(name, recipe), (name, recipe))
    return list(found.values())
