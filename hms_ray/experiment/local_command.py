"""Local debug mode: one process, this machine's GPU or CPU, no Ray."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
from tqdm import tqdm

from hms_ray.config.space import Space
from hms_ray.dataset.folds import read_folds
from hms_ray.dataset.prepare import prepare
from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.preflight import preflight
from hms_ray.experiment.run import ExperimentResult, run_experiment
from hms_ray.report.progress import bar
from hms_ray.report.tensorboard import write_fold
from hms_ray.storage.fold_store import FoldStore
from hms_ray.text import counted


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
) -> int:
    """Trains the experiment of a space in this process and prints its scores.

    What a space searches is left at its experiment's own values. Results go to
    the fold store like any others; TensorBoard logs to ``results/local/NAME``.

    Args:
        space: its experiment is trained.
        data_dir: competition folder.
        results: folder of all studies.
        name: folder of the logs; the experiment's name where absent.
        folds: folds to train; all where absent.
        fold_table: file with folds to use.
        pack_dir: where packs are kept.
        threads: torch threads.

    Returns:
        Exit status 0.
    """
    experiment = space.experiment
    table = None if fold_table is None else read_folds(fold_table)
    prepared = prepare(data_dir, experiment, results, pack_dir=pack_dir, folds=table, bars=bar)
    for note in prepared.notes:
        print(note)
    if space.search:
        print(f"not searched here: {', '.join(space.search)} (the experiment's own values)")
    preflight(space.alone(), prepared)
    runner = InProcessRunner(threads, share_stages=space.resources.share_stages)
    print(_heading(experiment.name, prepared.rows(), runner.placement))
    with _Bars() as bars:
        result = run_experiment(
            experiment, prepared, results, runner, folds=folds, report=bars.show
        )
    logs = results / "local" / (name or experiment.name)
    _write_logs(result, results, logs)
    print(_summary(result))
    print(f"TensorBoard: tensorboard --logdir {logs}")
    return 0


class _Bars:
    """One progress bar a fold, in percent of its steps."""

    def __init__(self) -> None:
        self.bar: tqdm[NoReturn] | None = None
        self.fold: int | None = None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *reason: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, record: dict[str, Any]) -> None:
        done = round(100 * record["progress"])
        if self.bar is None or record["fold"] != self.fold:
            self.__exit__()
            self.fold = record["fold"]
            # What the store gave took no time, so the time left shall not count on it.
            reused = record["event"] == "stages_reused"
            self.bar = tqdm(
                total=100,
                initial=done if reused else 0,
                desc=f"fold {self.fold}",
                unit="%",
                ncols=79,
                file=sys.stderr,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
            )
        self.bar.update(done - self.bar.n)
        if record.get("kl_all") is not None:
            self.bar.set_postfix_str(
                f"{record['stage']} {record['epoch']:g} KL {record['kl_all']:.4f}"
            )


def _heading(name: str, rows: pd.DataFrame, placement: Placement) -> str:
    return (
        f"{name}: {counted(len(rows), 'row')} of "
        f"{counted(rows['patient_id'].nunique(), 'patient')}, "
        f"{rows['fold'].nunique()} folds, on {placement.device_class}"
    )


def _write_logs(result: ExperimentResult, results: Path, logs: Path) -> None:
    store = FoldStore(results)
    for fold, key in result.keys.items():
        record = store.record(key)
        write_fold(logs / f"fold_{fold}", record["history"], started_s=record["started_s"])


def _summary(result: ExperimentResult) -> str:
    scores = ", ".join(
        f"{SCORE_NAMES[name]} {score:.4f}"
        for name, score in result.scores.items()
        if score is not None
    )
    mark = "\nOptimistic: checkpoints were chosen on the scored rows." if result.optimistic else ""
    reused = ", ".join(map(str, result.reused))
    stages = "".join(f"\n{line}" for line in _stage_lines(result))
    return (
        f"{scores} ({len(result.oof):,} out-of-fold rows){mark}\n"
        f"{result.fold_minutes:.1f} minutes of training"
        + (f"; taken from the store: fold {reused}" if reused else "")
        + stages
    )


def _stage_lines(result: ExperimentResult) -> list[str]:
    """What the folds trained now did not have to train; a line for each set of stages."""
    folds: dict[tuple[str, ...], list[int]] = {}
    for fold, stages in result.reused_stages.items():
        if fold not in result.reused:
            folds.setdefault(stages.names, []).append(fold)
    return [
        f"stage{'s' if len(names) > 1 else ''} {', '.join(names)} taken from the store: "
        f"fold {', '.join(map(str, of))} "
        f"({sum(result.reused_stages[fold].saved_s for fold in of):.0f} s saved)"
        for names, of in folds.items()
    ]
