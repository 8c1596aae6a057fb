"""How much a ladder trains: folds and image visits of each step, without packs or training.

An image visit is one training image in one epoch; scoring is not counted.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from hms_ray.config.experiment import Experiment, canonical
from hms_ray.display.tables import Column, Table, to_text
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.experiment.image_visits import stage_visits
from hms_ray.ladder.steps import Ladder
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.hashing import digest
from hms_ray.text import counted

SHARED_NOTE: Final = (
    "An image visit is one training image in one epoch. Folds and first stages that several "
    "steps share are trained once and stand under the first of them."
)
STORE_NOTE: Final = (
    "Folds that the fold store has already are not subtracted; the run itself prints what is left."
)


@dataclass(frozen=True)
class StepWork:
    """What one step trains that no earlier step does.

    Attributes:
        name: of the step.
        n_folds: folds.
        visits: image visits.
    """

    name: str
    n_folds: int
    visits: int


def ladder_work(ladder: Ladder, rows: pd.DataFrame) -> list[StepWork]:
    """Folds and image visits of each experiment of a ladder, if nothing is stored yet.

    Args:
        ladder: its experiments.
        rows: training rows with ``fold``, ``total_votes`` and targets.
    """
    known: set[Hashable] = set()
    work = []
    for name, experiment in ladder.experiments().items():
        keys = _stage_keys(experiment)
        n_folds = visits = 0
        for fold in sorted(rows["fold"].unique().tolist()):
            fold_keys = [(key, fold) for key in keys]
            if fold_keys[-1] in known:
                continue
            n_folds += 1
            images = stage_visits(experiment, rows, fold)
            visits += _new_visits(
                fold_keys, images, known, share_stages=ladder.resources.share_stages
            )
        work.append(StepWork(name, n_folds, visits))
    return work


def missing_visits(tasks: Sequence[FoldTask], rows: pd.DataFrame, *, share_stages: bool) -> int:
    """Image visits of folds to be trained, without stages that the fold store has.

    Args:
        tasks: missing folds, in the order of training.
        rows: training rows, see ``Prepared.rows``.
        share_stages: whether finished first stages are reused.
    """
    known: set[Hashable] = set()
    total = 0
    for task in tasks:
        store = FoldStore(task.results)
        keys = [task.truncated(number).key for number in range(1, task.n_stages + 1)]
        known |= {key for key in keys if store.has(key)}
        images = stage_visits(task.experiment, rows, task.fold)
        total += _new_visits(keys, images, known, share_stages=share_stages)
    return total


def work_text(work: Sequence[StepWork], n_seeds: int = 1) -> str:
    """The plan of one training seed as a table, with the total over all seeds."""
    columns = (
        Column("step", [step.name for step in work], right=False),
        Column("folds to train", [f"{step.n_folds}" for step in work]),
        Column("image visits", [f"{step.visits:,}" for step in work]),
    )
    folds = counted(n_seeds * sum(step.n_folds for step in work), "fold")
    seeds = f" of {n_seeds} training seeds" if n_seeds > 1 else ""
    total = (
        f"In total{seeds}: {folds}, {n_seeds * sum(step.visits for step in work):,} image visits."
    )
    return to_text(Table("Plan", columns, (SHARED_NOTE, STORE_NOTE)), total)


def _stage_keys(experiment: Experiment) -> list[str]:
    """For each stage a key of training up to its end; equal training has equal keys."""
    training = experiment.training
    numbers = range(1, len(training.stages) + 1)
    return [
        digest(canonical(experiment.model_copy(update={"training": training.first_stages(n)})))
        for n in numbers
    ]


def _new_visits(
    keys: Sequence[Hashable], images: Sequence[int], known: set[Hashable], *, share_stages: bool
) -> int:
    """Visits of the stages after the last known one; the stages are known from then on."""
    if not share_stages:
        keys, images = keys[-1:], [sum(images)]
    new = sum(count for key, count in zip(keys, images, strict=True) if key not in known)
    known.update(keys)
    return new
