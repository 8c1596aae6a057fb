"""A sweep from the command line: prepare data, run the study, print the leaderboard."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from hms_ray.blend.gain_reference import check_reference
from hms_ray.config.space import Space
from hms_ray.dataset.folds import read_folds
from hms_ray.dataset.prepare import Prepared, prepare
from hms_ray.dataset.sources import sources_for
from hms_ray.display.live import bar, print_text
from hms_ray.display.run_cost import cost_text
from hms_ray.display.tables import to_text
from hms_ray.errors import ConfigError, DataError, FoldError
from hms_ray.experiment.disk_use import require_disk_space
from hms_ray.experiment.preflight import preflight
from hms_ray.experiment.same_rows import same_rows_notes
from hms_ray.report.write import report_line
from hms_ray.storage.folder_names import checked_name, require_inside
from hms_ray.storage.locks import running_since
from hms_ray.study.folder import StudyFolder
from hms_ray.study.new import check_study
from hms_ray.study.references import n_references
from hms_ray.study.run_outcome import EXIT_ZERO, record_outcome
from hms_ray.sweep.study import run_study


def sweep(
    space: Space,
    data_dir: Path,
    results: Path,
    name: str,
    *,
    fold_table: Path | None = None,
    pack_dir: Path | None = None,
    address: str | None = None,
    log_level: str = "INFO",
    needs_weights: bool = False,
    retry_failed: bool = False,
    confirm: tuple[int, int] = (0, 0),
    exit_zero: bool = False,
    simulated: bool = False,
) -> int:
    """Searches a space and prints the leaderboard.

    Args:
        space: what to search.
        data_dir: competition folder.
        results: folder of all studies.
        name: of the study.
        fold_table: file with folds to use.
        pack_dir: folder of packs; default: beside the data.
        address: of a running Ray cluster.
        log_level: least level of records in the study's logs.
        needs_weights: train stored folds again whose weights were freed.
        retry_failed: train the failed trials of earlier runs again.
        confirm: see ``run_study``.
        exit_zero: return 0 where another run would end in the same way.
        simulated: whether the data is simulated.

    Returns:
        Exit status: 1 if trials failed and fewer are finished than requested, with a line on
        standard error. Failed trials that others replaced do not count.
    """
    require_inside(results / checked_name(name), results)
    try:
        return _sweep(
            space,
            data_dir,
            results,
            name,
            fold_table=fold_table,
            pack_dir=pack_dir,
            address=address,
            log_level=log_level,
            needs_weights=needs_weights,
            retry_failed=retry_failed,
            confirm=confirm,
            exit_zero=exit_zero,
            simulated=simulated,
        )
    except (ConfigError, DataError) as error:
        # Of the configuration or the data of a study that ran before.
        study = StudyFolder.find(name, results)
        if study is not None and running_since(study.path) is None:
            record_outcome(study.path, str(error), final=True)
        raise


def _sweep(
    space: Space,
    data_dir: Path,
    results: Path,
    name: str,
    *,
    fold_table: Path | None,
    pack_dir: Path | None,
    address: str | None,
    log_level: str,
    needs_weights: bool,
    retry_failed: bool,
    confirm: tuple[int, int],
    exit_zero: bool,
    simulated: bool,
) -> int:
    given = None if fold_table is None else read_folds(fold_table)
    ready = partial(
        prepare,
        data_dir,
        space.experiment,
        results,
        sources=sources_for(space),
        pack_dir=pack_dir,
        bars=bar,
        check=partial(_check, space, results, name, data_dir, pack_dir, confirm[0] * confirm[1]),
    )
    prepared = ready(folds=given) if given is not None else _resumed(ready, results / name)
    for note in prepared.notes:
        print_text(note)
    run = run_study(
        space,
        prepared,
        results,
        name,
        address=address,
        log_level=log_level,
        needs_weights=needs_weights,
        retry_failed=retry_failed,
        confirm=confirm,
        data={"data": str(data_dir.resolve()), "simulated": simulated},
    )
    cost = "".join(f"{to_text(cost_text(cost))}\n\n" for cost in run.costs)
    limit = "" if run.limit is None else f"{run.limit}\n\n"
    print_text(f"\n{run.leaderboard.text()}\n\n{cost}{limit}study: {run.folder.path}")
    print_text(report_line(run.folder, changed=bool(run.costs)))
    missing = run.shortfall(space.budget.trials)
    if missing is None:
        return 0
    then = f"exit status 0, by {EXIT_ZERO}" if exit_zero else "run the same command to resume"
    print(f"hms-ray sweep: {missing}; {then}", file=sys.stderr)
    return 0 if exit_zero else 1


def _check(
    space: Space,
    results: Path,
    name: str,
    data_dir: Path,
    pack_dir: Path | None,
    n_more: int,
    rows: pd.DataFrame,
) -> None:
    check_study(results, name, space, rows)
    preflight(space, rows, space.resources.device_class, space.resources.workers)
    study = StudyFolder.find(name, results)
    _check_gain(space, study, results, rows)
    n_finished = 0 if study is None else sum(trial.finished for trial in study.trials())
    n_missing = max(0, space.budget.trials - n_finished) + n_more
    if note := require_disk_space(space, rows, n_missing, data_dir, results, pack_dir):
        print_text(note)
    for text in same_rows_notes(space, rows):
        print_text(text)


def _check_gain(space: Space, study: StudyFolder | None, results: Path, rows: pd.DataFrame) -> None:
    """Checks a first reference from outside, unless the study has its copy already."""
    # Of dropped rows, the others are known only once the recordings were read.
    if space.gain.reference is None or space.experiment.data.unusable == "drop":
        return
    if study is None or not n_references(study):
        check_reference(space.gain.reference, results, rows)


def _resumed(ready: Callable[..., Prepared], study: Path) -> Prepared:
    """Data with the stored folds of a study, since other library versions draw others.

    Only a study with an ended trial is resumed; any other is made anew, with newly drawn
    folds. If stored folds do not fit the rows, the data has changed, which the study
    reports with more detail.
    """
    kept = study / "rows.parquet"
    if not kept.is_file() or not (study / "trials").is_dir():
        return ready()
    try:
        folds = read_folds(kept)
    except DataError:
        return ready()
    try:
        return ready(folds=folds)
    except FoldError:
        return ready()
