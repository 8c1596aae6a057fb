"""Trials of a study on a connected Ray: what a search and confirming runs share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ray import tune
from ray.tune.search import Searcher

from hms_ray.config.space import Space
from hms_ray.dataset.prepare import Prepared
from hms_ray.distributed.bench_tasks import machine_kinds
from hms_ray.distributed.cluster import Cluster, n_concurrent_trials
from hms_ray.distributed.job import Train
from hms_ray.distributed.nodes import check_nodes, has_bfloat16
from hms_ray.distributed.standing_groups import StandingGroups
from hms_ray.storage.faults import storage_error
from hms_ray.storage.run_log import WorkerLogs
from hms_ray.study.bench_estimate import BenchEstimate, read_bench
from hms_ray.study.folder import StudyFolder
from hms_ray.study.identity import data_identity
from hms_ray.sweep.run_faults import RunFaults
from hms_ray.sweep.trial_actor import StudyJob, run_trial
from hms_ray.sweep.trial_restarts import StartLimit

TUNE: Final = "tune"
"""Tune's folder in the scratch folder of a study."""
TRIAL_MEMORY_BYTES = 300 * 2**20
"""Memory that a trial's own process requests. It requests no CPU: its workers do the work,
and on a small machine even a fraction of a CPU here would leave too little for them."""


@dataclass(frozen=True)
class TrialRuns:
    """Trains trials of a study.

    Attributes:
        space: of the study.
        prepared: rows, folds and packs.
        results: folder of all studies, absolute.
        folder: the study's folder.
        train: trains one fold in a worker.
        needs_weights: train stored folds again whose weights were freed.
    """

    space: Space
    prepared: Prepared
    results: Path
    folder: StudyFolder
    train: Train
    needs_weights: bool = False

    def checked(self, cluster: Cluster) -> tuple[int, bool]:
        """Trials at once, and whether all devices have bfloat16; scratch is made empty.

        Raises:
            ResourceError: if no group fits, or a node fails its check.
        """
        resources = self.space.resources
        n_concurrent = n_concurrent_trials(cluster, resources)
        packs = [pack.path for pack in self.prepared.packs.values()]
        check_nodes(cluster, [self.prepared.rows_file, *packs, self.results])
        bfloat16 = has_bfloat16(cluster, resources)
        shutil.rmtree(self.folder.scratch, ignore_errors=True)
        self.folder.scratch.mkdir()
        return n_concurrent, bfloat16

    def bench(self, cluster: Cluster) -> BenchEstimate | None:
        """The bench of this space on this data and cluster; None without one."""
        machines = machine_kinds(cluster, self.space.resources)
        return read_bench(self.results, self.space, data_identity(self.prepared), machines)

    def groups(self, n_trials: int, message: Callable[[str], None]) -> StandingGroups:
        """Worker groups for some trials; ``message`` shows a line to the user."""
        return StandingGroups(
            self.space.resources,
            self.folder.scratch.resolve() / "train",
            message,
            expected=n_trials * self.prepared.n_folds,
        )

    def job(self, bfloat16: bool, queue: Any, events: Any) -> StudyJob:
        """Settings of the trials, see ``StudyJob``."""
        path = self.folder.path.resolve()
        return StudyJob(
            study=path,
            results=self.results,
            prepared=self.prepared,
            resources=self.space.resources,
            bfloat16=bfloat16,
            events=events,
            queue=queue,
            logs=WorkerLogs.as_here(path),
            train=self.train,
            needs_weights=self.needs_weights,
            objective=self.space.objective,
            prune=self.space.pruning,
        )

    def tune(self, job: StudyJob, n_concurrent: int, search: Searcher, faults: RunFaults) -> None:
        """Trains what a searcher suggests, until it suggests no more.

        Raises:
            HmsRayError: the first fault that ended the run.
        """
        try:
            self._tune(job, n_concurrent, search, faults)
        except Exception as error:
            faults.check()
            # Tune writes files of its own.
            found = storage_error(error, self.folder.path)
            if found is None:
                raise
            raise found from error
        faults.check()

    def _tune(self, job: StudyJob, n_concurrent: int, search: Searcher, faults: RunFaults) -> None:
        trainable = tune.with_resources(
            tune.with_parameters(run_trial, job=job),
            tune.PlacementGroupFactory([{"memory": TRIAL_MEMORY_BYTES}]),
        )
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=search,
                num_samples=-1,  # the search knows when enough are finished
                max_concurrent_trials=n_concurrent,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: f"{trial.config['number']:04d}",
            ),
            run_config=tune.RunConfig(
                name=TUNE,
                storage_path=str(self.folder.scratch),
                failure_config=tune.FailureConfig(max_failures=-1),
                callbacks=[StartLimit(), faults],
                verbose=0,
            ),
        ).fit()
        # Nothing in it is ever read.
        shutil.rmtree(self.folder.scratch / TUNE, ignore_errors=True)
