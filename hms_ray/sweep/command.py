"""A sweep from the command line: data made ready, study run, leaderboard printed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hms_ray.config.space import Space
from hms_ray.dataset.folds import read_folds
from hms_ray.dataset.prepare import Prepared, prepare, sources_for
from hms_ray.errors import DataError
from hms_ray.experiment.preflight import preflight
from hms_ray.report.leaderboard import render
from hms_ray.report.progress import bar
from hms_ray.study.folder import StudyFolder
from hms_ray.sweep.study import run_study
from hms_ray.text import counted


def sweep(
    space: Space,
    data_dir: Path,
    results: Path,
    name: str,
    *,
    fold_table: Path | None = None,
    pack_dir: Path | None = None,
    address: str | None = None,
) -> int:
    """Searches a space and prints what was found.

    Args:
        space: what to search.
        data_dir: competition folder.
        results: folder of all studies.
        name: of the study.
        fold_table: file with folds to use.
        pack_dir: where packs are kept.
        address: of a running Ray cluster.

    Returns:
        Exit status: 1 where trials failed and fewer are finished than were asked for, which a
        line on standard error tells. A failed trial in whose place another one was drawn and
        finished leaves nothing undone.
    """
    given = None if fold_table is None else read_folds(fold_table)
    ready = partial(
        prepare,
        data_dir,
        space.experiment,
        results,
        sources=sources_for(space),
        pack_dir=pack_dir,
        bars=bar,
    )
    prepared = ready(folds=given) if given is not None else _resumed(ready, results / name)
    for note in prepared.notes:
        print(note)
    preflight(space, prepared)
    run = run_study(space, prepared, results, name, address=address)
    folder = StudyFolder.open(name, results)
    print(f"\n{render(folder.leaderboard())}\n\nstudy: {folder.path}")
    if not run.n_failed or run.n_finished >= space.study.n_trials:
        return 0
    finished = f"{run.n_finished} of {counted(space.study.n_trials, 'trial')} finished"
    print(
        f"hms-ray sweep: {finished}, {run.n_failed} failed; the same command goes on",
        file=sys.stderr,
    )
    return 1


def _resumed(ready: Callable[..., Prepared], study: Path) -> Prepared:
    """Data with the folds that a study was made with, for libraries change.

    Only a study of which a trial has ended is gone on with; any other is made anew, with
    the folds asked for now. Where kept folds no longer fit the rows the data has changed;
    the study says so better.
    """
    kept = study / "rows.parquet"
    if not kept.is_file() or not (study / "trials").is_dir():
        return ready()
    try:
        return ready(folds=read_folds(kept))
    except DataError:
        return ready()
