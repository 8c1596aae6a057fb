"""Confirming runs: the best trials, trained again with new seeds after the search."""

from __future__ import annotations

from dataclasses import replace
from typing import TextIO

from hms_ray.config.pruning import NO_PRUNING
from hms_ray.display.live import ProgressView
from hms_ray.display.progress import TrainingProgress
from hms_ray.display.run_cost import RunCost, estimate_text
from hms_ray.distributed.cluster import Cluster, n_groups_at_most
from hms_ray.distributed.progress import EventPump
from hms_ray.study.confirmation import ConfirmingRun, missing_runs, require_own_model
from hms_ray.study.cost import RunCounter
from hms_ray.sweep.run_faults import RunFaults
from hms_ray.sweep.run_list import RunList
from hms_ray.sweep.trial_runs import TrialRuns
from hms_ray.text import counted


def confirm(
    trials: TrialRuns,
    cluster: Cluster,
    n_best: int,
    n_seeds: int,
    stream: TextIO | None,
    faults: RunFaults,
) -> RunCost | None:
    """Trains the best trials again with new seeds, those runs that are not stored yet.

    Args:
        trials: of the study.
        cluster: connected.
        n_best: number of trials.
        n_seeds: new seeds of each.
        stream: where progress is shown; default: standard output.
        faults: of the run.

    Returns:
        The cost of these runs; None if there was nothing to train.
    """
    runs = missing_runs(trials.folder, n_best, n_seeds)
    if not runs:
        return None
    for run in runs:
        require_own_model(trials.space, run, trials.folder)
    resources, folds = trials.space.resources, range(trials.prepared.n_folds)
    costs = RunCounter(trials.folder.path, trials.results, "confirm")
    n_concurrent, bfloat16 = trials.checked(cluster)
    costs.start(len(runs), n_groups_at_most(cluster, resources), trials.bench(cluster))
    progress = TrainingProgress(
        len(folds),
        objective=trials.space.objective,
        work={(run.experiment.name, fold): 1.0 for run in runs for fold in folds},
        on_event=costs.handle,
    )
    with (
        costs.written(lambda: progress.first_estimate_s),
        ProgressView(progress, stream) as view,
        EventPump(view) as pump,
    ):
        pump.message(
            f"{trials.folder.name}: {counted(len({run.number for run in runs}), 'trial')} "
            f"confirmed with new seeds, {counted(len(runs), 'run')} x {len(folds)} folds, "
            f"{n_concurrent} at once"
        )
        pump.message(estimate_text(costs.estimate))

        def end(run: ConfirmingRun, failed: str | None) -> None:
            if failed is not None:
                pump.message(f"{run.experiment.name} failed: {failed}")
            costs.write()

        with trials.groups(len(runs), pump.message) as groups:
            job = trials.job(bfloat16, groups.queue, pump.events)
            job = replace(job, confirming=True, needs_weights=False, prune=NO_PRUNING)
            trials.tune(job, n_concurrent, RunList(runs, end, faults), faults)
        if resources.group == "study":
            costs.set_groups(groups.times())
    return costs.last
