"""A study on Ray Tune: from a search space and prepared data to a study's folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from hms_ray.blend.gain_reference import add_first_reference
from hms_ray.config.space import BLEND_GAIN, Space
from hms_ray.dataset.prepare import Prepared
from hms_ray.display.live import ProgressView, print_text
from hms_ray.display.notice import Event
from hms_ray.display.progress import TrainingProgress
from hms_ray.display.run_cost import RunCost
from hms_ray.distributed.cluster import (
    Cluster,
    n_groups_at_most,
    session,
)
from hms_ray.distributed.environment_record import environment_record
from hms_ray.distributed.job import Train
from hms_ray.distributed.progress import EventPump
from hms_ray.evaluate.metric import Array, named_scores
from hms_ray.experiment.fold_task import run_task
from hms_ray.search.journal import Scores, StudyTitle
from hms_ray.search.outcomes import STOP_REASON, Outcome, Proposal, Pruned
from hms_ray.search.proposals import Proposals
from hms_ray.search.pruner import Pruner, patients_of
from hms_ray.search.pruning import Decision
from hms_ray.search.warm_start import KnownTrial, known_trials
from hms_ray.storage.run_log import LOG_FILE, FaultLog, run_log
from hms_ray.study.board import StudyBoard
from hms_ray.study.budget import HoursClock
from hms_ray.study.confirmation import missing_runs
from hms_ray.study.cost import RunCounter, read_costs
from hms_ray.study.folder import StudyFolder
from hms_ray.study.gains import StudyGains
from hms_ray.study.kept_weights import KeptWeights
from hms_ray.study.new import open_study, require_objective_rows
from hms_ray.study.references import Reference
from hms_ray.study.row_scores import RowScores
from hms_ray.study.run_outcome import FINISHED, errors_recorded, record_outcome
from hms_ray.study.trial import DIVERGED, PRUNED, StoredTrial
from hms_ray.study.warm_start import warm_start_studies
from hms_ray.sweep.announcement import earlier_lines, work_lines
from hms_ray.sweep.confirming import confirm
from hms_ray.sweep.run_faults import RunFaults
from hms_ray.sweep.stop_watch import StopWatch
from hms_ray.sweep.study_result import StudyResult, study_result
from hms_ray.sweep.study_title import study_title
from hms_ray.sweep.trial_ends import TrialEnds
from hms_ray.sweep.trial_runs import TrialRuns
from hms_ray.sweep.tune_searcher import StudySearch
from hms_ray.text import counted

logger = logging.getLogger(__name__)


def run_study(
    space: Space,
    prepared: Prepared,
    results: str | Path,
    name: str,
    *,
    address: str | None = None,
    train: Train = run_task,
    stream: TextIO | None = None,
    log_level: str = "INFO",
    needs_weights: bool = False,
    retry_failed: bool = False,
    confirm: tuple[int, int] = (0, 0),
    data: Mapping[str, str | bool] | None = None,
) -> StudyResult:
    """Runs a study until ``space.budget`` is used up.

    An existing study is resumed: finished trials count, interrupted ones are run again
    first, and finished folds are reused from the fold store.

    Args:
        space: what to search.
        prepared: rows, folds and packs.
        results: folder of all studies.
        name: of the study's folder.
        address: of a running Ray cluster; default: an embedded Ray is started.
        train: trains one fold in a worker.
        stream: where progress is shown; default: standard output.
        log_level: least level of records in the logs of the study and its workers.
        needs_weights: train stored folds again whose weights were freed.
        retry_failed: train the failed trials of earlier runs again, see ``Proposals``.
        confirm: number of best trials to train again after the search, and of new training
            seeds for each, see ``study.confirmation``.
        data: attributes of the data, such as its folder, for Optuna's own tools.

    Raises:
        StudyError: if the folder holds another study, another command runs it or takes it
            over, no row counts for the objective, or no trial finished.
        ConfigError: if the pruning rule can stop no trial.
        ResourceError: if no worker group fits on the cluster.
        ModelError: if a weights file cannot be read.
        StorageError: if the results cannot be written any more; open trials stay open.
    """
    require_objective_rows(space.objective, prepared.rows())
    space.pruning.require_effect(prepared.n_folds)
    results = Path(results).resolve()
    faults = RunFaults()
    with (
        open_study(
            results, name, space, prepared, announce=print_text, on_lost=faults.add
        ) as folder,
        errors_recorded(folder.path),
        run_log(folder.path / LOG_FILE, log_level),
    ):
        add_first_reference(folder, space.gain.reference)
        run = _Run(
            *(space, prepared, results, folder, train, stream),
            *(needs_weights, retry_failed, faults, study_title(folder, data or {})),
        )
        watch = StopWatch(folder.path, run.stop_trial, on_fault=faults.add)
        with watch as run.stops:
            if run.n_missing > 0 or missing_runs(folder, *confirm):
                with session(address) as cluster:
                    if run.n_missing > 0:
                        run.search(cluster)
                    run.confirm(cluster, *confirm)
            result = run.result()
        missing = result.shortfall(space.budget.trials)
        record_outcome(folder.path, missing or result.limit or FINISHED, final=True)
        return result


class _Run:
    """One run of a study: connects the search, the study's folder and the terminal."""

    def __init__(
        self,
        space: Space,
        prepared: Prepared,
        results: Path,
        folder: StudyFolder,
        train: Train,
        stream: TextIO | None,
        needs_weights: bool = False,
        retry_failed: bool = False,
        faults: RunFaults | None = None,
        title: StudyTitle | None = None,
    ) -> None:
        self.stops: StopWatch
        self.faults = faults or RunFaults()
        self._search: StudySearch | None = None
        self._cancel: Callable[[int], None] = lambda number: None
        self._warm = ""
        self._space, self._prepared, self._results = space, prepared, results
        self._folder, self._stream = folder, stream
        self._trials = TrialRuns(space, prepared, results, folder, train, needs_weights)
        self._faults = FaultLog(logger, folder.path)
        self._pump: EventPump
        self._costs = RunCounter(folder.path, results, devices=space.resources.devices)
        self._confirming: RunCost | None = None
        self._hours = HoursClock(space, read_costs(folder.path), self._costs.cost)
        keep, kept = space.resources.keep_weights, None
        if keep != "all":
            kept = KeptWeights(folder, results, keep, space.objective)
        rows = folder.rows()
        self._pruner = Pruner(space.pruning, patients_of(rows, space.objective))
        self._board = StudyBoard(folder, results)
        self._ends = TrialEnds(
            folder,
            lambda event: self._pump.send(event),
            kept,
            self._take_stored,
            self._board.trial_ended,
        )
        by_gain = space.metric == BLEND_GAIN
        self._proposals = Proposals(
            space,
            folder.journal,
            recover=self._stored_scores,
            reports=self._pruner.reports,
            gains=StudyGains(folder, self._new_reference) if by_gain else None,
            on_duplicate=lambda number, original: self._pump.message(
                f"trial {number:04d} repeats trial {original:04d}: not trained again"
            ),
            retry_failed=retry_failed,
            known=self._known_trials(),
            title=title,
        )

    def _known_trials(self) -> list[KnownTrial]:
        studies = warm_start_studies(self._space, self._results, self._folder.identity["data"])
        known = known_trials(self._space, studies)
        if studies:
            n_trials = sum(len(study.finished_trials()) for study in studies)
            self._warm = (
                f"warm start: {len(known)} of {counted(n_trials, 'trial')} lie in the space"
            )
        return known

    def _new_reference(self, reference: Reference) -> None:
        text = f"new {reference.title}: {named_scores(reference.scores or {})}"
        logger.info(text)
        # A renewal that a kill prevented is made when the study is opened.
        if hasattr(self, "_pump"):
            self._pump.message(text)

    @property
    def n_missing(self) -> int:
        """Trials still to be trained in this run."""
        return self._hours.n_missing(self._proposals.n_finished, self._proposals.n_retried)

    def _stored_scores(self, number: int) -> Scores | Pruned | None:
        trial = self._folder.trial(number)
        if trial is not None and trial.state in (PRUNED, DIVERGED):
            return Pruned(str(trial.reason), diverged=trial.state == DIVERGED)
        return trial.scores if trial is not None and trial.finished else None

    def _recovered_scores(self, number: int) -> Scores | Pruned | None:
        with self._faults(f"trial {number:04d} could not be read"):
            return self._stored_scores(number)
        return None

    def search(self, cluster: Cluster) -> None:
        """Searches on a connected Ray."""
        resources = self._space.resources
        n_concurrent, bfloat16 = self._trials.checked(cluster)
        self._folder.record_run(environment_record(cluster))
        logger.info("space: %s", self._space.model_dump_json(exclude_defaults=True))
        logger.info("cluster: %s; resources: %s", cluster, resources.model_dump_json())
        n_slots = n_groups_at_most(cluster, resources)
        self._costs.start(self.n_missing, n_slots, self._trials.bench(cluster))
        progress = self._progress()
        with (
            self._costs.written(lambda: progress.first_estimate_s),
            self._board,
            ProgressView(progress, self._stream) as view,
            EventPump(view, self._decide) as self._pump,
        ):
            self._announce(cluster, n_concurrent)
            self._load_finished()
            self._board.catch_up(self._ends.leaderboard.trials)
            groups = self._trials.groups(self.n_missing, self._note_groups)
            with groups:
                self._cancel = groups.cancel
                self._search = search = StudySearch(
                    self._proposals,
                    self._space.budget.trials,
                    recover=self._recovered_scores,
                    on_end=self._end_trial,
                    on_exhausted=self._ends_early,
                    reached_limit=lambda: self._hours.reached(self._proposals.n_retried),
                    faults=self.faults,
                )
                job = self._trials.job(bfloat16, groups.queue, self._pump.events)
                self._trials.tune(job, n_concurrent, search, self.faults)
            # Before the cost is written: it counts what pruned trials did not train.
            self._ends.settle()
            if resources.group == "study":
                self._costs.set_groups(groups.times())

    def _note_groups(self, text: str) -> None:
        """Shows and logs what happens to the worker groups: a report counts lost ones."""
        logger.info(text)
        self._pump.message(text)

    def confirm(self, cluster: Cluster, n_best: int, n_seeds: int) -> None:
        """See ``sweep.confirming``."""
        self._confirming = confirm(
            self._trials, cluster, n_best, n_seeds, self._stream, self.faults
        )

    def _load_finished(self) -> None:
        """Gives the pruner the finished trials of earlier runs."""
        if self._space.pruning.rule != "none":
            scores = RowScores(self._folder.rows())
            for trial in self._ends.leaderboard.finished:
                with self._faults(f"trial {trial.number:04d} could not be read"):
                    self._pruner.add_finished(trial.number, scores.of(trial.path))

    def _take_stored(self, trial: StoredTrial, row_scores: Array | None) -> None:
        if row_scores is not None:
            self._pruner.add_finished(trial.number, row_scores)
        self._costs.add_pruned(60 * trial.saved_folds_minutes[1])

    def _decide(self, question: dict[str, Any]) -> Decision:
        """Answers a trial's process after one of its folds."""
        return self._pruner.after_fold(question["trial"], question["fold"], question["sums"])

    def _end_trial(self, proposal: Proposal, outcome: Outcome) -> None:
        self._ends.record(proposal, outcome)
        self.stops.trial_ended(proposal.number, stopped=outcome == STOP_REASON)
        self._costs.write()

    def stop_trial(self, number: int) -> str | None:
        """Cancels the folds of a running trial; see ``StopWatch``."""
        if self._search is None or not self._search.stop(number):
            return "does not run"
        self._cancel(number)
        return None

    def _progress(self) -> TrainingProgress:
        objective = self._space.objective
        best = None
        for trial in self._ends.leaderboard.finished[:1]:
            score = trial.scores[objective]
            best = None if score is None else (trial.number, score)
        return TrainingProgress(
            self._prepared.n_folds,
            n_trials=self._space.budget.trials,
            n_finished=self._proposals.n_finished,
            objective=objective,
            best=best,
            on_event=self._handle,
        )

    def _handle(self, event: Event) -> None:
        self._costs.handle(event)
        self._board.handle(event)

    def _announce(self, cluster: Cluster, n_concurrent: int) -> None:
        sizes = self.n_missing, self._prepared.n_folds, n_concurrent
        name, estimate = self._folder.name, self._costs.estimate
        for text in (
            *work_lines(self._space, name, cluster, sizes, estimate),
            *earlier_lines(self._space, self._folder, self._results, self._proposals, self._warm),
        ):
            self._pump.message(text)

    def _ends_early(self, reason: str) -> None:
        n_finished, n_trials = self._proposals.n_finished, self._space.budget.trials
        self._pump.message(f"the search ended after {n_finished} of {n_trials} trials: {reason}")

    def result(self) -> StudyResult:
        """See ``study_result``."""
        costs = tuple(cost for cost in (self._costs.last, self._confirming) if cost)
        n_finished = self._proposals.n_finished
        return study_result(self._folder, self._ends, n_finished, costs, self._hours.reached())
