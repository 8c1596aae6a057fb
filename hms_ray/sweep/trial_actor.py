"""One trial of a study, as Tune's trial actor runs it."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hms_ray.config.experiment import Experiment
from hms_ray.config.space import ResourcesConfig
from hms_ray.dataset.prepare import Prepared
from hms_ray.distributed.job import Train
from hms_ray.distributed.progress import send_event
from hms_ray.distributed.queue_actor import QueueRunner
from hms_ray.errors import FoldCancelled, one_line
from hms_ray.experiment.fold_task import Report, run_task
from hms_ray.experiment.run import ExperimentResult, run_experiment
from hms_ray.search.distributions import describe
from hms_ray.storage.run_log import WorkerLogs
from hms_ray.study.confirmation import ConfirmedRuns
from hms_ray.study.folder import StudyFolder

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


def run_trial(config: dict[str, Any], job: StudyJob) -> dict[str, Any]:
    """Trains a trial's missing folds, scores it and writes its folder.

    An error is returned as a result, so that Tune keeps the process for the next trial and
    repeats a trial only if its process was lost. A trial whose process was lost after it
    wrote its result is not run again.

    Args:
        config: ``number``, ``point`` and ``experiment`` of a proposal.
        job: settings that all trials share.

    Returns:
        The three scores, or ``error``.
    """
    number, point = int(config["number"]), dict(config["point"])
    experiment = Experiment.model_validate(config["experiment"])
    folder = StudyFolder(job.study)
    if job.confirming:
        folder = ConfirmedRuns(job.study, experiment.training.seed)
    done = folder.trial(number)
    if done is not None and done.finished:
        return dict(done.scores)
    job = replace(job, logs=replace(job.logs, fields={"trial": f"{number:04d}"}))
    try:
        with job.logs.opened():
            return _run(number, point, experiment, job, folder)
    except FoldCancelled as cancelled:
        # Whoever has cancelled it knows why, and records it.
        return {"error": str(cancelled)}
    except Exception as error:
        reason = one_line(error)
        try:
            folder.write_failure(number, point, experiment, reason, traceback.format_exc())
        except Exception:
            logger.exception("the failure of trial %04d was not recorded", number)
        return {"error": reason}


def _run(
    number: int,
    point: dict[str, Any],
    experiment: Experiment,
    job: StudyJob,
    folder: StudyFolder,
) -> dict[str, Any]:
    try:
        result = _train(number, point, experiment, job)
        folder.write_trial(number, point, experiment, result)
    except FoldCancelled:
        logger.info("trial cancelled")
        raise
    except Exception:
        logger.exception("trial failed")
        raise
    logger.info("trial ended: %s", result.scores)
    return dict(result.scores)


def _train(
    number: int, point: dict[str, Any], experiment: Experiment, job: StudyJob
) -> ExperimentResult:
    # Runs of one trial with several seeds are told apart by the experiment's name.
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
    )
