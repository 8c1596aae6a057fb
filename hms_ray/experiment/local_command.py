"""Local debug mode: one process, this machine's GPU or CPU, no Ray."""

from __future__ import annotations

import logging
import shlex
import tempfile
import textwrap
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pandas as pd

from hms_ray.config.space import Space
from hms_ray.dataset.folds import read_folds
from hms_ray.dataset.prepare import Prepared, prepare
from hms_ray.display.live import ProgressView, bar, print_text
from hms_ray.display.live_runs import LiveRuns
from hms_ray.display.progress import TrainingProgress
from hms_ray.display.run_texts import experiment_texts
from hms_ray.display.tensorboard import RunEnd, RunLog
from hms_ray.errors import ConfigError, one_line
from hms_ray.evaluate.metric import named_scores
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.limited import Predict, train_limited
from hms_ray.experiment.preflight import preflight, require_folds
from hms_ray.experiment.run import ExperimentResult, run_experiment
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.folder_names import LOCAL, checked_name, require_inside
from hms_ray.storage.run_log import LOG_FILE, run_log
from hms_ray.text import counted

if TYPE_CHECKING:
    from hms_ray.train.trace import StepTrace

logger = logging.getLogger(__name__)

TRACE_AFTER: Final = 10
"""Steps before those of a trace, while memory is allocated and the network compiles."""
TRACED_STEPS: Final = 10


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
    trace: Path | None = None,
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
        trace: file for a trace of some steps, ``.json`` or ``.json.gz``.

    Returns:
        Exit status 0.
    """
    experiment = space.experiment
    logs = results / LOCAL / checked_name(name or experiment.name)
    require_inside(logs, results / LOCAL)
    tracer = None if trace is None else _tracer(trace, TRACE_AFTER)
    runner = _runner(space, threads, tracer)
    prepared = _prepare(space, data_dir, results, runner, folds or (), fold_table, pack_dir)
    heading = _heading(space, prepared, runner)
    print_text(heading)
    with run_log(logs / LOG_FILE, log_level):
        logger.info("%s; experiment: %s", heading, experiment.model_dump_json())
        with tracer or nullcontext():
            result = _train(space, prepared, results, runner, folds, logs)
        summary = _summary(result)
        logger.info("%s", summary)
    print_text(f"{summary}\nTensorBoard: tensorboard --logdir {shlex.quote(str(logs.parent))}")
    _print_trace(tracer)
    return 0


def try_locally(
    space: Space,
    data_dir: Path,
    *,
    limit: int,
    predict: Predict,
    fold: int = 0,
    fold_table: Path | None = None,
    pack_dir: Path | None = None,
    threads: int = 1,
    trace: Path | None = None,
) -> int:
    """Trains a few batches of one fold and prints what was used; only packs are kept.

    Args:
        space: its experiment is trained.
        data_dir: competition folder.
        limit: batches per epoch, at least 1; see ``train_limited``.
        predict: see ``train_limited``.
        fold: validation fold.
        fold_table: file with folds to use.
        pack_dir: folder of packs; default: beside the data.
        threads: torch threads.
        trace: file for a trace of the steps, ``.json`` or ``.json.gz``.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: if the limit is below 1, or too small for a trace.
    """
    least = 1 if trace is None else 2
    if limit < least:
        raise ConfigError(
            f"--limit must be at least {least}" + (" with --trace" if trace else ""),
            got=limit,
            fix="Use --limit 2.",
        )
    tracer = None if trace is None else _tracer(trace, 0)
    # A checkpoint after each evaluation: writing one is a part of training too.
    resources = space.resources.model_copy(update={"checkpoint_every_s": 0.0})
    space = space.model_copy(update={"resources": resources})
    runner = _runner(space, threads, tracer)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="hms-ray-limit-") as folder:
        prepared = _prepare(space, data_dir, Path(folder), runner, [fold], fold_table, pack_dir)
        print_text(f"{_heading(space, prepared, runner)}; fold {fold}, {limit} batches per epoch")
        packed_s = time.perf_counter() - began
        with tracer or nullcontext():
            used = train_limited(space.experiment, prepared, runner, predict, fold, limit)
    for name, text in used:
        print_text(f"  {name:12} {text}")
    print_text(
        f"Nothing was added to the fold store. {time.perf_counter() - began:.1f} s, of which "
        f"{packed_s:.1f} s for checking and packing."
    )
    _print_trace(tracer)
    return 0


def _tracer(file: Path, skip: int) -> StepTrace:
    """The trace of steps to write to a file, which can be written.

    Raises:
        ConfigError: if it cannot.
    """
    from hms_ray.train.trace import StepTrace

    if not file.name.endswith((".json", ".json.gz")):
        raise ConfigError(
            "--trace needs a file that ends in .json or .json.gz",
            got=file.name,
            fix="Use --trace trace.json.gz.",
        )
    if not file.absolute().parent.is_dir():
        raise ConfigError(
            "the folder of --trace must exist", got=str(file.parent), fix="Create it first."
        )
    return StepTrace(file, skip, TRACED_STEPS)


def _print_trace(tracer: StepTrace | None) -> None:
    if tracer is None:
        return
    if not tracer.n_recorded:
        print_text(
            "No trace was written: no step followed the first ones. Stored folds are not trained "
            "again; --limit 2 always trains."
        )
        return
    print_text(
        f"Trace of {counted(tracer.n_recorded, 'step')}: {tracer.file}. Open it in "
        "https://ui.perfetto.dev or chrome://tracing."
    )


def _runner(space: Space, threads: int, tracer: StepTrace | None) -> InProcessRunner:
    resources = space.resources
    return InProcessRunner(
        threads,
        share_stages=resources.share_stages,
        windows=resources.windows,
        checkpoint_every_s=resources.checkpoint_every_s,
        local_cache=resources.local_cache,
        on_step=None if tracer is None else tracer.step,
    )


def _prepare(
    space: Space,
    data_dir: Path,
    results: Path,
    runner: InProcessRunner,
    folds: Sequence[int],
    fold_table: Path | None,
    pack_dir: Path | None,
) -> Prepared:
    """Rows, folds and packs, with their notes printed."""
    table = None if fold_table is None else read_folds(fold_table)

    def check(rows: pd.DataFrame) -> None:
        require_folds(folds, rows)
        preflight(space.alone(), rows, runner.placement.device_class)

    prepared = prepare(
        data_dir, space.experiment, results, pack_dir=pack_dir, folds=table, bars=bar, check=check
    )
    for note in prepared.notes:
        print_text(note)
    if space.parameters:
        text = f"--local does not search; the file's values are used: {', '.join(space.parameters)}"
        print_text(textwrap.fill(text, 80, break_long_words=False, break_on_hyphens=False))
    return prepared


def _heading(space: Space, prepared: Prepared, runner: InProcessRunner) -> str:
    rows = prepared.rows()
    return (
        f"{space.experiment.name}: {counted(len(rows), 'row')} of "
        f"{counted(rows['patient_id'].nunique(), 'patient')}, {prepared.n_folds} folds, "
        f"on {runner.placement.device_class}"
    )


def _train(
    space: Space,
    prepared: Prepared,
    results: Path,
    runner: InProcessRunner,
    folds: Sequence[int] | None,
    logs: Path,
) -> ExperimentResult:
    experiment = space.experiment
    wanted = range(prepared.n_folds) if folds is None else dict.fromkeys(folds)
    read, name = FoldStore(results).record, logs.name
    texts = experiment_texts(experiment)
    live = LiveRuns(
        lambda name: RunLog(logs, logs, space.objective, len(wanted), read), lambda event: name
    )
    live.begin(name, {})
    progress = TrainingProgress(
        prepared.n_folds,
        objective=space.objective,
        work={(experiment.name, fold): 1.0 for fold in wanted},
        on_event=live.handle,
    )
    with live, ProgressView(progress, threaded=False) as view:
        try:
            result = run_experiment(
                experiment,
                prepared,
                results,
                runner,
                folds=folds,
                report=view.handle,
                needs_weights=True,
            )
        except Exception as error:
            end = RunEnd(state="failed", reason=one_line(error), texts=texts)
            live.end(name, {}, lambda run: end)
            raise
        end = RunEnd(scores=result.scores, minutes=result.fold_minutes, texts=texts)
        live.end(name, result.keys, lambda run: end)
        return result


def _summary(result: ExperimentResult) -> str:
    mark = "\noptimistic: checkpoints were chosen on the scored rows" if result.optimistic else ""
    reused = ", ".join(map(str, result.reused))
    return (
        f"{named_scores(result.scores)} ({len(result.oof):,} out-of-fold rows){mark}\n"
        f"{result.fold_minutes:.1f} minutes of training"
        + (f"; reused from the fold store: fold {reused}" if reused else "")
    )
