"""One trial of a study, as Tune's trial actor runs it."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd

from hms_ray.config.experiment import Experiment
from hms_ray.config.pruning import NO_PRUNING, PruneConfig
from hms_ray.config.space import Objective, ResourcesConfig
from hms_ray.dataset.prepare import Prepared
from hms_ray.distributed.job import Train
from hms_ray.distributed.progress import ask, send_event
from hms_ray.distributed.queue_actor import QueueRunner
from hms_ray.errors import DivergedError, FoldCancelled, StorageError, one_line
from hms_ray.experiment.fold_task import Report, run_task
from hms_ray.experiment.run import ExperimentResult, run_experiment
from hms_ray.search.distributions import describe
from hms_ray.search.patient_folds import PatientFolds
from hms_ray.search.pruner import patients_of, sums_of_fold
from hms_ray.storage.run_log import WorkerLogs
from hms_ray.study.confirmation import ConfirmedRuns
from hms_ray.study.folder import StudyFolder
from hms_ray.study.trial import DIVERGED, PRUNED, State
from hms_ray.sweep.trial_restarts import check_restarts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudyJob:
    """Settings that all trials of a study share: paths and handles, no arrays.

    Attributes:
        study: folder of the study, absolute.
        results: folder of all studies and the fold store, absolute.
        prepared: rows, folds and packs.
        resources: of a worker group.
        bfloat16: whether every device has it.
        events: handle of the actor that collects progress events.
        queue: handle of the queue that worker groups take folds from.
        logs: where trials and workers log.
        train: trains one fold in a worker.
        needs_weights: see ``run_experiment``.
        confirming: whether trials are trained again with other seeds, see ``confirmation``.
        objective: score whose rows decide about pruning.
        prune: when trials are stopped.
    """

    study: Path
    results: Path
    prepared: Prepared
    resources: ResourcesConfig
    bfloat16: bool
    events: Any
    queue: Any
    logs: WorkerLogs
    train: Train = run_task
    needs_weights: bool = False
    confirming: bool = False
    objective: Objective = "kl_10"
    prune: PruneConfig = NO_PRUNING


def run_trial(config: dict[str, Any], job: StudyJob) -> dict[str, Any]:
    """Trains a trial's missing folds, scores it and writes its folder.

    An error is returned as a result, so that Tune keeps the process for the next trial and
    repeats a trial only if its process was lost. A trial whose process was lost after it
    wrote its result is not run again.

    Args:
        config: ``number``, ``point`` and ``experiment`` (JSON) of a proposal.
        job: settings that all trials share.

    Returns:
        The three scores, ``pruned`` with a reason, or ``error``, with ``diverged`` if so; or
        ``storage`` with the ``StorageError`` that ends the run, while the trial stays open.
    """
    number, point = int(config["number"]), dict(config["point"])
    experiment = Experiment.model_validate_json(config["experiment"])
    folder = StudyFolder(job.study)
    if job.confirming:
        folder = ConfirmedRuns(job.study, experiment.training.seed)
    done = folder.trial(number)
    if done is not None and done.finished:
        return dict(done.scores)
    if done is not None and done.state == PRUNED:
        return {PRUNED: done.reason}
    job = replace(job, logs=replace(job.logs, fields={"trial": f"{number:04d}"}))
    try:
        with job.logs.opened():
            return _run(number, point, experiment, job, folder)
    except FoldCancelled as cancelled:
        # Whoever has cancelled it knows why, and records it.
        return {"error": str(cancelled)}
    except StorageError as error:
        return {"storage": error}
    except Exception as error:
        reason, diverged = one_line(error), isinstance(error, DivergedError)
        state: State = DIVERGED if diverged else "failed"
        try:
            folder.write_failure(
                number, point, experiment, reason, traceback.format_exc(), state=state
            )
        except StorageError as fault:
            return {"storage": fault}
        except Exception:
            logger.exception("the failure of trial %04d was not recorded", number)
        return {"error": reason, "diverged": True} if diverged else {"error": reason}


def _run(
    number: int,
    point: dict[str, Any],
    experiment: Experiment,
    job: StudyJob,
    folder: StudyFolder,
) -> dict[str, Any]:
    try:
        decisions = _FoldDecisions(number, job)
        result = _train(number, point, experiment, job, decisions)
        if result.stopped:
            n_folds, reason = job.prepared.n_folds, decisions.reason
            reason = f"after {len(result.keys)} of {n_folds} folds: {reason}"
            folder.write_pruned(
                number, point, experiment, result, reason, decisions.estimate, n_folds
            )
            logger.info("trial pruned %s", reason)
            return {PRUNED: reason}
        folder.write_trial(number, point, experiment, result)
    except FoldCancelled:
        logger.info("trial cancelled")
        raise
    except Exception:
        logger.exception("trial failed")
        raise
    logger.info("trial ended: %s", result.scores)
    return dict(result.scores)


class _FoldDecisions:
    """Gets the decision of the study process after each fold of a trial."""

    def __init__(self, number: int, job: StudyJob) -> None:
        self._number, self._job = number, job
        self.reason, self.estimate = "", float("nan")

    @cached_property
    def _rows(self) -> pd.DataFrame:
        return self._job.prepared.rows()

    @cached_property
    def _patients(self) -> PatientFolds:
        return patients_of(self._rows, self._job.objective)

    def continues(self, fold: int, oof: pd.DataFrame) -> bool:
        """Whether the trial continues after a fold; without an answer, it does."""
        sums = sums_of_fold(oof, fold, self._rows, self._patients)
        question = {"trial": self._number, "fold": fold, "sums": sums}
        answer = ask(self._job.events, question)
        if answer is None or not answer.stop:
            return True
        self.reason, self.estimate = answer.reason, answer.estimate
        return False


def _train(
    number: int,
    point: dict[str, Any],
    experiment: Experiment,
    job: StudyJob,
    decisions: _FoldDecisions,
) -> ExperimentResult:
    check_restarts(job.queue, f"{number} {experiment.training.seed}")
    # Runs of one trial with several seeds are distinguished by the experiment's name.
    fields: dict[str, Any] = {} if job.confirming else {"trial": number}
    report: Report = partial(send_event, job.events, **fields)
    runner = QueueRunner(
        job.queue,
        job.resources,
        trial=None if job.confirming else number,
        logs=job.logs,
        bfloat16=job.bfloat16,
        train=job.train,
    )
    text = describe(point) or experiment.name
    logger.info("trial started: %s", text)
    if not job.confirming:
        report({"event": "trial_started", "text": text})
    return run_experiment(
        experiment,
        job.prepared,
        job.results,
        runner,
        report=report,
        needs_weights=job.needs_weights,
        continues=None if job.prune.rule == "none" else decisions.continues,
    )
