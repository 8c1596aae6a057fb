"""Local debug mode: one process, this machine's GPU or CPU, no Ray."""

from __future__ import annotations

import logging
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hms_ray.config.space import Space
from hms_ray.dataset.folds import read_folds
from hms_ray.dataset.prepare import Prepared, prepare
from hms_ray.evaluate.metric import named_scores
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.preflight import preflight, require_folds
from hms_ray.experiment.run import ExperimentResult, run_experiment
from hms_ray.report.live import ProgressView, bar, print_text
from hms_ray.report.progress import TrainingProgress
from hms_ray.report.tensorboard import write_fold
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.folder_names import LOCAL, checked_name
from hms_ray.storage.run_log import LOG_FILE, FaultLog, run_log
from hms_ray.text import counted
from hms_ray.train.selection import kept_record

logger = logging.getLogger(__name__)


def train_locally(
    space: Space,
    data_dir: Path,
    results: Path,
    *,
    name: str | None = None,
    folds: Sequence[int] | None = None,
    fold_table: Path | None = None,
    pack_dir: Path | None = None,
    threads: int = 1,
    log_level: str = "INFO",
) -> int:
    """Trains the experiment of a space in this process and prints its scores.

    Searched parameters keep the experiment's own values. Results go to the fold store as
    always; the log and TensorBoard's logs to ``results/local/NAME``.

    Args:
        space: its experiment is trained.
        data_dir: competition folder.
        results: folder of all studies.
        name: folder of the logs; default: the experiment's name.
        folds: folds to train; default: all.
        fold_table: file with folds to use.
        pack_dir: folder of packs; default: beside the data.
        threads: torch threads.
        log_level: least level of records in the log.

    Returns:
        Exit status 0.
    """
    experiment = space.experiment
    logs = results / LOCAL / checked_name(name or experiment.name)
    table = None if fold_table is None else read_folds(fold_table)
    resources = space.resources
    runner = InProcessRunner(
        threads, share_stages=resources.share_stages, windows=resources.windows
    )

    def check(rows: pd.DataFrame) -> None:
        require_folds(folds or (), rows)
        preflight(space.alone(), rows, runner.placement.device_class)

    prepared = prepare(
        data_dir, experiment, results, pack_dir=pack_dir, folds=table, bars=bar, check=check
    )
    for note in prepared.notes:
        print_text(note)
    if space.parameters:
        text = f"--local does not search; the file's values are used: {', '.join(space.parameters)}"
        print_text(textwrap.fill(text, 80, break_long_words=False, break_on_hyphens=False))
    rows = prepared.rows()
    heading = (
        f"{experiment.name}: {counted(len(rows), 'row')} of "
        f"{counted(rows['patient_id'].nunique(), 'patient')}, {prepared.n_folds} folds, "
        f"on {runner.placement.device_class}"
    )
    print_text(heading)
    with run_log(logs / LOG_FILE, log_level):
        logger.info("%s; experiment: %s", heading, experiment.model_dump_json())
        result = _train(space, prepared, results, runner, folds)
        with FaultLog(logger)("TensorBoard logs were not written"):
            for fold, key in result.keys.items():
                record = FoldStore(results).record(key)
                history, started_s = record["history"], record["started_s"]
                kept = kept_record(history)
                write_fold(logs / f"fold_{fold}", history, scores=kept, started_s=started_s)
        summary = _summary(result)
        logger.info("%s", summary)
    print_text(f"{summary}\nTensorBoard: tensorboard --logdir {shlex.quote(str(logs))}")
    return 0


def _train(
    space: Space,
    prepared: Prepared,
    results: Path,
    runner: InProcessRunner,
    folds: Sequence[int] | None,
) -> ExperimentResult:
    experiment = space.experiment
    wanted = range(prepared.n_folds) if folds is None else folds
    progress = TrainingProgress(
        prepared.n_folds,
        objective=space.metric,
        work={(experiment.name, fold): 1.0 for fold in wanted},
    )
    with ProgressView(progress, threaded=False) as view:
        return run_experiment(
            experiment,
            prepared,
            results,
            runner,
            folds=folds,
            report=view.handle,
            needs_weights=True,
        )


def _summary(result: ExperimentResult) -> str:
    mark = "\noptimistic: checkpoints were chosen on the scored rows" if result.optimistic else ""
    reused = ", ".join(map(str, result.reused))
    return (
        f"{named_scores(result.scores)} ({len(result.oof):,} out-of-fold rows){mark}\n"
        f"{result.fold_minutes:.1f} minutes of training"
        + (f"; reused from the fold store: fold {reused}" if reused else "")
    )
