"""One trial of a study: what Tune's trial actor runs."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hms_ray.config.experiment import Experiment
from hms_ray.config.space import ResourcesConfig
from hms_ray.dataset.prepare import Prepared
from hms_ray.distributed.progress import TrialReport
from hms_ray.distributed.worker_group import Train, WorkerGroupRunner
from hms_ray.errors import HmsRayError
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import ExperimentResult, FoldTask, plan_folds, run_experiment, run_task
from hms_ray.search.distributions import describe
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.folder import StudyFolder


@dataclass(frozen=True)
class StudyJob:
    """What all trials of a study share; paths and handles, no arrays.

    Attributes:
        study: folder of the study, absolute.
        results: folder of all studies and the fold store, absolute.
        prepared: rows, folds and packs.
        resources: of a worker group.
        bfloat16: whether every device has it.
        events: handle of the actor that collects progress.
        train: trains one fold in a worker.
    """

    study: Path
    results: Path
    prepared: Prepared
    resources: ResourcesConfig
    bfloat16: bool
    events: Any
    train: Train = run_task


def run_trial(config: dict[str, Any], job: StudyJob) -> dict[str, Any]:
    """Trains a trial's missing folds, scores it and writes its folder.

    An error becomes a result too: Tune then keeps the process for the next trial,
    and repeats a trial only where its process was lost. One that was lost after it
    had written its result is not run again.

    Args:
        config: ``number``, ``point`` and ``experiment`` of a proposal.
        job: what all trials share.

    Returns:
        The three scores, or ``error``.
    """
    folder = StudyFolder(job.study)
    number, point = int(config["number"]), dict(config["point"])
    experiment = Experiment.model_validate(config["experiment"])
    done = folder.trial(number)
    if done is not None and done.finished:
        return dict(done.scores)
    try:
        result = _train(number, point, experiment, job)
        folder.write_trial(number, point, experiment, result)
        return dict(result.scores)
    except Exception as error:
        reason = str(error) if isinstance(error, HmsRayError) else _one_line(error)
        folder.write_failure(number, point, experiment, reason, traceback.format_exc())
        return {"error": reason}


def _train(
    number: int, point: dict[str, Any], experiment: Experiment, job: StudyJob
) -> ExperimentResult:
    report = TrialReport(job.events, number)
    runner = WorkerGroupRunner(
        job.resources,
        name=f"trial-{number:04d}",
        scratch=StudyFolder(job.study).scratch / "train",
        bfloat16=job.bfloat16,
        train=job.train,
    )
    stored = stored_folds(experiment, job.prepared, job.results, runner.placement)
    report(
        {
            "event": "trial_started",
            "text": describe(point) or experiment.name,
            "reused": [task.fold for task in stored],
        }
    )
    return run_experiment(experiment, job.prepared, job.results, runner, report=report)


def stored_folds(
    experiment: Experiment, prepared: Prepared, results: Path, placement: Placement
) -> list[FoldTask]:
    """The folds of an experiment that the store holds already."""
    store = FoldStore(results)
    tasks = plan_folds(experiment, prepared, results, placement)
    return [task for task in tasks if store.has(task.key)]


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1][:300]}" if lines else type(error).__name__
