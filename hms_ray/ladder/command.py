"""The command ``ladder``: prepares data, runs the steps, prints and writes the tables."""

from __future__ import annotations

import logging
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pandas as pd

from hms_ray import __version__
from hms_ray.config.experiment import Experiment, used_data_values
from hms_ray.config.values import replace_values
from hms_ray.dataset.folds import read_folds
from hms_ray.dataset.prepare import Prepared, prepare, rows_with_folds
from hms_ray.display.ladder_table import render_ladder
from hms_ray.display.live import bar, print_text
from hms_ray.errors import ConfigError, FoldError, PredictionError, StudyError
from hms_ray.experiment.in_process import local_device_class
from hms_ray.ladder.folder import read_ladder, write_ladder
from hms_ray.ladder.image_visits import ladder_work, work_text
from hms_ray.ladder.plan import check_steps, sources_of
from hms_ray.ladder.report import make_report, write_report
from hms_ray.ladder.run import LadderRun, Trainer, run_ladder
from hms_ray.ladder.steps import Ladder
from hms_ray.ladder.steps_file import STEPS_FILE
from hms_ray.storage.folder_names import checked_name, kind_of, require_inside, require_kind
from hms_ray.storage.locks import StudyLock
from hms_ray.storage.run_log import LOG_FILE, run_log
from hms_ray.text import clock_text, counted

logger = logging.getLogger(__name__)

SCRATCH: Final = ".ray"
"""Folder for Ray's own files within a ladder's; may be deleted between runs."""

OracleScores = Mapping[str, Mapping[str, float | None]]
"""Oracle -> score (``kl_all``, ``kl_4``, ``kl_10``) -> nats."""

OracleScorer = Callable[[str, str, pd.DataFrame], OracleScores | None]
"""(row unit, window, rows) -> KL of the oracles; None if unknown."""


def ladder_folder(results: Path, name: str) -> Path:
    """The folder of a ladder; created if missing.

    Raises:
        StudyError: if the name is no valid folder name, or the folder holds something else.
    """
    folder = results / checked_name(name)
    require_inside(folder, results)
    require_kind(folder, "ladder", "--study NAME")
    if kind_of(folder) is None and not (folder / LOG_FILE).is_file():
        others = [file for file in folder.glob("*") if not file.name.startswith(".")]
        if others:
            raise StudyError(
                "a ladder needs a folder of its own",
                got=f"other files, such as {others[0].name}",
                where=folder,
                fix="Use another name: --study NAME.",
            )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class LadderCall:
    """Options of a run.

    Attributes:
        data_dir: competition folder.
        results: folder of all studies.
        name: of the ladder's folder.
        simulator: how the folder was simulated; None for others.
        oracle_scores: computes the KL of the oracles on simulated votes.
        scale: name of the overlay, or ``full``.
        argv: command line without the program.
        fold_table: file with folds to use.
        pack_dir: folder of packs; default: in the data folder.
        log_level: least level of records in the ladder's logs.
        local: whether it is trained in this process, and not with the ladder's resources.
    """

    data_dir: Path
    results: Path
    name: str
    simulator: Mapping[str, Any] | None
    oracle_scores: OracleScorer
    scale: str
    argv: list[str]
    fold_table: Path | None = None
    pack_dir: Path | None = None
    log_level: str = "INFO"
    local: bool = False


def training_seeds(text: str | None, settings: Sequence[str]) -> list[int]:
    """The training seeds of ``--seeds 0,1,2``; none without a text.

    Raises:
        ConfigError: if they are not different whole numbers from 0, or ``settings`` set one.
    """
    if text is None:
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(map(int, parts))) < len(parts):
        raise ConfigError(
            "--seeds must be different whole numbers from 0, joined by commas",
            got=text,
            fix="Give them such as --seeds 0,1,2.",
        )
    for setting in settings:
        if setting.split("=")[0].endswith("training.seed"):
            raise ConfigError("--seeds sets training.seed", got=f"--set {setting}", fix="Omit one.")
    return [int(part) for part in parts]


def seeded(ladder: Ladder, call: LadderCall, seed: int) -> tuple[Ladder, LadderCall]:
    """A ladder with one training seed in all experiments, and its run in a folder of its own."""
    steps = tuple(
        step
        if step.experiment is None
        else replace(
            step, experiment=replace_values(step.experiment, {"training.seed": seed}, step.name)
        )
        for step in ladder.steps
    )
    return replace(ladder, steps=steps), replace(call, name=f"{call.name}-seed{seed}")


def run_command(
    ladder: Ladder, call: LadderCall, trainer: Callable[[Path], AbstractContextManager[Trainer]]
) -> int:
    """Runs a ladder, writes its folder and prints the effect of each step.

    Args:
        ladder: the steps.
        call: options.
        trainer: opens a trainer, given a folder for its own files.

    Returns:
        Exit status: 1 if a step has no result; a line on standard error counts them.
    """
    started = time.monotonic()
    folder = ladder_folder(call.results, call.name)
    lock = StudyLock(folder, "ladder", announce=print_text)
    with lock, run_log(folder / LOG_FILE, call.log_level):
        # Another command may have written it before this one had the lock.
        require_kind(folder, "ladder", "--study NAME")
        prepared = _prepared(ladder, call, folder)
        for note in prepared.notes:
            print_text(note)
        rows = prepared.rows()
        about = _about(ladder, call, rows)
        print_text(_heading(call.name, ladder, rows, simulated=call.simulator is not None))
        with trainer(folder / SCRATCH) as made:
            run = run_ladder(
                ladder, prepared, call.results, made, announce=print_text, folder=folder
            )
        seconds = time.monotonic() - started
        about |= {"failed": run.failed, "minutes": seconds / 60}
        lock.check()
        write_ladder(folder, rows, run.results, about)
        report = make_report(rows, run.results, about)
        write_report(folder, report)
        logger.info("%s", _summary(run, seconds))
    print_text(f"\n{render_ladder(report)}\n\n{_summary(run, seconds)}\n\nladder: {folder}")
    if not run.failed:
        return 0
    failed = f"{len(run.failed)} of {counted(len(ladder.steps), 'step')} failed"
    print(f"hms-ray ladder: {failed}; run the same command again to retry", file=sys.stderr)
    return 1


def print_plan(ladder: Ladder, call: LadderCall, n_seeds: int = 1) -> None:
    """Prints the folds and image visits of a ladder; needs the label table alone.

    Args:
        ladder: the steps.
        call: options; folder and fold table are used.
        n_seeds: training seeds that the ladder is run with.

    Raises:
        FaultyDataError: if the label table has faults.
        DataError: if the fold table does not fit the rows.
    """
    config = next(iter(ladder.experiments().values())).data
    folds = None if call.fold_table is None else read_folds(call.fold_table)
    rows = rows_with_folds(call.data_dir, config, folds)
    print_text(_heading(call.name, ladder, rows, simulated=call.simulator is not None))
    print_text(work_text(ladder_work(ladder, rows), n_seeds))


def _about(ladder: Ladder, call: LadderCall, rows: pd.DataFrame) -> dict[str, Any]:
    """Where, how and when the ladder is run; keys ``steps_file.ABOUT_KEYS`` and ``rows``."""
    experiment = next(iter(ladder.experiments().values()))
    oracles = call.oracle_scores(experiment.data.unit, experiment.data.window, rows)
    return {
        "data": call.data_dir.name,
        "simulated": call.simulator is not None,
        "simulator": None if call.simulator is None else dict(call.simulator),
        "scale": call.scale,
        "command": shlex.join(["hms-ray", *call.argv]),
        "seed": experiment.training.seed,
        "machine": {
            "cpus": os.cpu_count(),
            "platform": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "hms_ray": __version__,
            **{name: version(name) for name in ("torch", "timm")},
        },
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "floors": None if oracles is None else {name: dict(of) for name, of in oracles.items()},
        "rows": used_data_values(experiment.data),
        "departures": {step.name: step.departures() for step in ladder.steps if step.recipe},
    }


def _prepared(ladder: Ladder, call: LadderCall, folder: Path) -> Prepared:
    """Data of all steps, with the folds of the ladder's last run if they fit."""
    experiment = next(iter(ladder.experiments().values()))
    device_class = local_device_class() if call.local else ladder.resources.device_class
    ready = partial(
        prepare,
        call.data_dir,
        experiment,
        call.results,
        sources=sources_of(ladder),
        pack_dir=call.pack_dir,
        bars=bar,
        check=partial(check_steps, ladder, device_class=device_class),
    )
    if call.fold_table is not None:
        return ready(folds=read_folds(call.fold_table))
    stored = _stored_folds(folder, experiment)
    if stored is None:
        return ready()
    try:
        return ready(folds=stored)
    except FoldError:
        # The data has changed.
        return ready()


def _stored_folds(folder: Path, experiment: Experiment) -> pd.DataFrame | None:
    """Folds of the ladder's last run: another version of a library may draw others.

    None if there is no ladder yet, or a damaged one, or one on other kinds of rows.
    """
    if not (folder / STEPS_FILE).is_file():
        return None
    try:
        stored = read_ladder(folder)
    except (StudyError, PredictionError) as error:
        logger.warning("folds are drawn anew, since the stored ladder is damaged: %s", error)
        return None
    if stored.about.get("rows") != used_data_values(experiment.data):
        return None
    return stored.rows[["row_id", "patient_id", "fold"]]


def _heading(name: str, ladder: Ladder, rows: pd.DataFrame, *, simulated: bool) -> str:
    data = f"{counted(len(rows), 'row')} of {counted(rows['patient_id'].nunique(), 'patient')}"
    steps = counted(len(ladder.steps), "step")
    return (
        f"{name}: {steps}, {len(ladder.experiments())} of them experiments, on "
        f"{data}{' (simulated data)' if simulated else ''}, {rows['fold'].nunique()} folds"
    )


def _summary(run: LadderRun, seconds: float) -> str:
    lines = [f"step {name} failed: {reason}" for name, reason in run.failed.items()]
    lines.append(
        f"{counted(run.n_trained, 'fold')} trained, {run.n_reused} reused from the fold store, "
        f"{clock_text(seconds)} in total"
    )
    return "\n".join(lines)
