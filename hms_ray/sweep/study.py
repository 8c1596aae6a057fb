"""A study on Ray Tune: from a search space and prepared data to a study's folder."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ray import tune

from hms_ray.config.space import Space
from hms_ray.dataset.prepare import Prepared
from hms_ray.distributed.cluster import (
    Cluster,
    n_concurrent_trials,
    session,
)
from hms_ray.distributed.environment_record import environment_record
from hms_ray.distributed.nodes import check_nodes, has_bfloat16
from hms_ray.distributed.progress import ProgressLines, ProgressPrinter
from hms_ray.distributed.worker_group import Train
from hms_ray.errors import HmsRayError, StudyError
from hms_ray.evaluate.metric import OBJECTIVES, SCORE_NAMES
from hms_ray.experiment.run import run_task
from hms_ray.search.journal import Scores
from hms_ray.search.proposals import Proposal, Proposals
from hms_ray.study.folder import StudyFolder
from hms_ray.study.trial import StoredTrial
from hms_ray.sweep.tensorboard import declare_study, write_trial_logs
from hms_ray.sweep.trial_actor import StudyJob, run_trial
from hms_ray.sweep.tune_searcher import StudySearch
from hms_ray.text import counted

TRIAL_MEMORY_BYTES = 300 * 2**20
"""What a trial's own process asks of Ray. It asks for no CPU: its workers do the
work, and on a small machine a sliver of a CPU here leaves no room for theirs."""


@dataclass(frozen=True)
class StudyResult:
    """What a run of a study came to.

    Attributes:
        folder: the study's folder.
        best: finished trial with the best objective.
        n_finished: finished trials, of all runs.
        n_failed: failed trials of this run.
        n_trained: folds trained in this run.
        n_reused: folds of this run's trials that the store held already.
        seconds: wall time of this run.
    """

    folder: StudyFolder
    best: StoredTrial
    n_finished: int
    n_failed: int
    n_trained: int
    n_reused: int
    seconds: float


def run_study(
    space: Space,
    prepared: Prepared,
    results: str | Path,
    name: str,
    *,
    address: str | None = None,
    train: Train = run_task,
    stream: TextIO | None = None,
) -> StudyResult:
    """Runs a study until ``space.study.n_trials`` trials are finished.

    A study that is there already is gone on with: finished trials count, those that
    were stopped are tried again first, and finished folds come from the store.

    Args:
        space: what to search.
        prepared: rows, folds and packs.
        results: folder of all studies.
        name: of the study's folder.
        address: of a running Ray cluster; without one an embedded Ray is started.
        train: trains one fold in a worker.
        stream: where progress goes; standard output where absent.

    Raises:
        StudyError: where the folder holds another study, another command runs it,
            no row counts for the objective, or no trial at all finished.
        ResourceError: where no worker group fits on the cluster.
        ModelError: where a weights file cannot be read.
    """
    _require_objective_rows(space, prepared)
    results = Path(results).resolve()
    folder = StudyFolder.create(results, name, space, prepared)
    with folder.lock():
        folder.keep_space(space)
        run = _Run(space, prepared, results, folder, train, stream)
        if run.n_missing > 0:
            with session(address) as cluster:
                run.go(cluster)
        return run.result()


def _require_objective_rows(space: Space, prepared: Prepared) -> None:
    objective = space.study.objective
    least = OBJECTIVES[objective]
    if not (prepared.rows()["total_votes"] >= least).any():
        raise StudyError(
            f"the objective {objective} needs rows of {least} votes or more",
            got="none",
            where=prepared.rows_file,
            fix="Choose another one: --set study.objective=kl_all.",
        )


class _Run:
    """One run of a study: the callbacks between search, folder and terminal."""

    def __init__(
        self,
        space: Space,
        prepared: Prepared,
        results: Path,
        folder: StudyFolder,
        train: Train,
        stream: TextIO | None,
    ) -> None:
        self._space, self._prepared, self._results = space, prepared, results
        self._folder, self._train, self._stream = folder, train, stream
        self._start = time.monotonic()
        self._started: dict[int, Proposal] = {}
        self._ended: list[StoredTrial] = []
        self._printer: ProgressPrinter | None = None
        self._proposals = Proposals(
            space,
            folder.journal,
            recover=self._stored_scores,
            on_duplicate=lambda number, original: self._say(
                f"trial {number:04d} repeats trial {original:04d}: not trained again"
            ),
        )

    @property
    def n_missing(self) -> int:
        """Trials that are still to be finished."""
        return self._space.study.n_trials - self._proposals.n_finished

    def _stored_scores(self, number: int) -> Scores | None:
        trial = self._folder.trial(number)
        return trial.scores if trial is not None and trial.finished else None

    def go(self, cluster: Cluster) -> None:
        """Searches on a connected Ray."""
        resources = self._space.resources
        n_concurrent = n_concurrent_trials(cluster, resources)
        packs = [pack.path for pack in self._prepared.packs.values()]
        check_nodes(cluster, [self._prepared.rows_file, *packs, self._results])
        bfloat16 = has_bfloat16(cluster, resources)
        shutil.rmtree(self._folder.scratch, ignore_errors=True)
        self._folder.scratch.mkdir()
        self._folder.record_run(environment_record(cluster))
        declare_study(self._folder, self._results)
        with ProgressPrinter(self._lines(), self._stream) as printer:
            self._printer = printer
            self._announce(cluster, n_concurrent)
            job = StudyJob(
                study=self._folder.path.resolve(),
                results=self._results,
                prepared=self._prepared,
                resources=resources,
                bfloat16=bfloat16,
                events=printer.events,
                train=self._train,
            )
            self._tune(job, n_concurrent)
        self._printer = None

    def _tune(self, job: StudyJob, n_concurrent: int) -> None:
        trainable = tune.with_resources(
            tune.with_parameters(run_trial, job=job),
            tune.PlacementGroupFactory([{"memory": TRIAL_MEMORY_BYTES}]),
        )
        search = StudySearch(
            self._proposals,
            self._space.study.n_trials,
            on_start=self._trial_started,
            on_end=self._trial_ended,
            on_exhausted=self._ends_early,
        )
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=search,
                num_samples=-1,  # the search knows when enough are finished
                max_concurrent_trials=n_concurrent,
                reuse_actors=True,
                trial_dirname_creator=_trial_folder_name,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(self._folder.scratch),
                failure_config=tune.FailureConfig(max_failures=self._space.resources.max_failures),
                verbose=0,
            ),
        ).fit()

    def _lines(self) -> ProgressLines:
        finished = self._folder.finished_trials()
        objective = self._space.study.objective
        best = [(trial.number, trial.scores[objective]) for trial in finished[:1]]
        return ProgressLines(
            self._space.study.n_trials,
            self._proposals.n_finished,
            self._prepared.n_folds,
            objective,
            next(((number, score) for number, score in best if score is not None), None),
        )

    def _announce(self, cluster: Cluster, n_concurrent: int) -> None:
        resources = self._space.resources
        trials = counted(self.n_missing, "trial")
        self._say(
            f"{self._folder.name}: {trials} x {self._prepared.n_folds} folds, "
            f"{n_concurrent} at once, by {SCORE_NAMES[self._space.study.objective]}"
        )
        self._say(f"on {cluster}; a worker group ({resources.workers}) a {resources.group}")
        if self._proposals.n_finished:
            self._say(f"finished before: {self._proposals.n_finished}")
        if self._proposals.n_interrupted:
            self._say(f"stopped before, tried again first: {self._proposals.n_interrupted}")

    def _ends_early(self, reason: str) -> None:
        n_finished, n_trials = self._proposals.n_finished, self._space.study.n_trials
        self._say(f"the search ends with {n_finished} of {n_trials} finished: {reason}")

    def _say(self, text: str) -> None:
        if self._printer is not None:
            self._printer.say(text)

    def _show(self, event: dict[str, Any]) -> None:
        if self._printer is not None:
            self._printer.show(event)

    def _trial_started(self, proposal: Proposal) -> None:
        self._started[proposal.number] = proposal

    def _trial_ended(self, number: int, reason: str | None) -> None:
        trial = self._folder.trial(number)
        if trial is None:
            proposal = self._started[number]
            self._folder.write_failure(
                number, proposal.point, proposal.experiment, reason or "no result"
            )
            trial = self._folder.trial(number)
        if trial is None:
            return
        self._ended.append(trial)
        if trial.finished:
            self._show({"event": "trial_ended", "trial": number, "scores": trial.scores})
            write_trial_logs(self._folder, trial, self._results)
        else:
            self._show({"event": "trial_failed", "trial": number, "reason": trial.reason})
        try:
            self._folder.write_leaderboard()
        except HmsRayError as error:
            # A damaged trial of the past must not end the search; the end will tell.
            self._say(str(error))

    def result(self) -> StudyResult:
        """Sums up; a study without a finished trial is an error."""
        self._folder.write_leaderboard()
        finished = self._folder.finished_trials()
        failed = [trial for trial in self._ended if not trial.finished]
        if not finished:
            first = failed[0] if failed else None
            raise StudyError(
                "a study must have a finished trial",
                got=f"{len(failed)} failed, the first one with: {first.reason}"
                if first
                else "none",
                where=self._folder.path,
                fix="Each trial's error.txt has the details." if first else None,
            )
        done = [trial for trial in self._ended if trial.finished]
        n_reused = sum(len(trial.reused) for trial in done)
        return StudyResult(
            folder=self._folder,
            best=finished[0],
            n_finished=len(finished),
            n_failed=len(failed),
            n_trained=sum(len(trial.keys) for trial in done) - n_reused,
            n_reused=n_reused,
            seconds=time.monotonic() - self._start,
        )


def _trial_folder_name(trial: Any) -> str:
    return f"{trial.config['number']:04d}"
