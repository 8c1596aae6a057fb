"""What a search prints before its first trial."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hms_ray.config.space import BLEND_GAIN, Space
from hms_ray.display.run_cost import Estimate, estimate_text
from hms_ray.distributed.cluster import Cluster
from hms_ray.distributed.group_resources import placement
from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.experiment.older_folds import made_otherwise
from hms_ray.search.proposals import Proposals
from hms_ray.search.pruning import pruning_text
from hms_ray.study.folder import StudyFolder
from hms_ray.text import counted


def work_lines(
    space: Space,
    name: str,
    cluster: Cluster,
    sizes: tuple[int, int, int],
    estimate: Estimate | None,
) -> Iterator[str]:
    """What is trained, where, and how long that will take.

    Args:
        space: of the study.
        name: of the study.
        cluster: where it runs.
        sizes: trials of this run, folds of a trial, trials at once.
        estimate: by a bench; None without one.
    """
    objective = SCORE_NAMES[space.objective]
    if space.metric == BLEND_GAIN:
        objective = f"gain of a blend in {objective}"
    n_trials, n_folds, n_concurrent = sizes
    yield (
        f"{name}: {counted(n_trials, 'trial')} x {n_folds} folds, {n_concurrent} at once, "
        f"objective {objective}"
    )
    yield f"on {cluster}; groups of {counted(space.resources.workers, 'worker')}"
    yield estimate_text(estimate)
    if text := pruning_text(space.pruning, n_folds):
        yield text


def earlier_lines(
    space: Space, folder: StudyFolder, results: Path, proposals: Proposals, warm: str
) -> Iterator[str]:
    """What earlier runs and studies have left.

    Args:
        space: of the study.
        folder: the study's folder.
        results: folder of the fold store.
        proposals: of the study.
        warm: the line about earlier studies; empty without any.
    """
    if proposals.n_finished:
        yield f"finished in earlier runs: {proposals.n_finished}"
        keys = [next(iter(trial.keys.values())) for trial in folder.finished_trials()]
        device = placement(space.resources).device_class
        if text := made_otherwise(keys, results, device):
            yield text
    if warm:
        yield warm
    if proposals.n_retried:
        yield f"failed trials, tried again: {proposals.n_retried}"
    if proposals.n_interrupted:
        yield f"interrupted trials, repeated first: {proposals.n_interrupted}"
