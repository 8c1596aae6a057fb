"""Commands that train, and the one that stops them: train, sweep, stop."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from hms_ray.cli.next_command import print_next, print_views, same_data
from hms_ray.cli.options import (
    RESULTS,
    Address,
    Data,
    ExitZero,
    File,
    FoldTable,
    Local,
    LocalThreads,
    LogLevel,
    PackDir,
    Results,
    Settings,
    flag,
    given_options,
    option,
    require_local_options,
)
from hms_ray.errors import ConfigError


def train(
    context: typer.Context,
    file: File,
    data: Data,
    settings: Settings = None,
    results: Results = RESULTS,
    pack_dir: PackDir = None,
    folds: FoldTable = None,
    study: Annotated[
        str | None, option("Name of the study.", "NAME", default="name of the experiment")
    ] = None,
    address: Address = None,
    local: Local = False,
    fold: Annotated[
        list[int] | None, option("Train only this fold, with --local; can be repeated.", "K")
    ] = None,
    threads: LocalThreads = 1,
    limit: Annotated[
        int | None,
        option("Try one fold with this many batches per epoch, with --local; keep nothing.", "N"),
    ] = None,
    trace: Annotated[
        Path | None,
        option("Write a trace of some steps by torch's profiler, with --local.", "FILE"),
    ] = None,
    seeds: Annotated[int, option("Training seeds, averaged as one model; on Ray.", "N")] = 1,
    exit_zero: ExitZero = False,
    log_level: LogLevel = "INFO",
) -> int:
    """Train one experiment, on Ray or in this process."""
    from hms_ray.config.loading import load_space
    from hms_ray.config.shipped import find_space

    require_local_options(context, local=local)
    _require_positive({"--seeds": seeds})
    if local and seeds > 1:
        raise ConfigError("--seeds needs Ray", got=f"--local, {seeds} seeds", fix="Omit --local.")
    if limit is not None:
        _require_limit_options(context, fold or [])
    space = load_space(find_space(file), settings or [])
    if not local:
        if fold:
            raise ConfigError("--fold needs --local", fix="A study on Ray trains all folds.")
        from hms_ray.distributed.cluster import check_connection

        check_connection(address)
        # Takes seconds.
        from hms_ray.simulate.ladder_data import simulation_of
        from hms_ray.study.seeds import SEEDS
        from hms_ray.sweep.command import sweep as run_sweep

        name = study or space.experiment.name
        status = run_sweep(
            space.alone(),
            data,
            results,
            name,
            fold_table=folds,
            pack_dir=pack_dir,
            address=address,
            log_level=log_level,
            needs_weights=True,
            confirm=(1, seeds - 1),
            exit_zero=exit_zero,
            simulated=simulation_of(data) is not None,
        )
        if status == 0:
            averaged = SEEDS if seeds > 1 else ""
            print_next("submit", f"{name}{averaged}", "--data", data, results=results)
        return status
    from hms_ray.experiment.local_command import train_locally, try_locally

    if limit is not None:
        from hms_ray.predict.models import predict_task

        try_locally(
            space,
            data,
            limit=limit,
            predict=partial(predict_task, threads=threads),
            fold=fold[0] if fold else 0,
            fold_table=folds,
            pack_dir=pack_dir,
            threads=threads,
            trace=trace,
        )
        print_next(*same_data("train", file, data, settings, pack_dir, folds), "--local")
        return 0
    train_locally(
        space,
        data,
        results,
        name=study,
        folds=fold,
        fold_table=folds,
        pack_dir=pack_dir,
        threads=threads,
        log_level=log_level,
        trace=trace,
    )
    command = "sweep" if space.parameters else "train"
    print_next(*same_data(command, file, data, settings, pack_dir, folds), results=results)
    return 0


def _require_limit_options(context: typer.Context, folds: list[int]) -> None:
    """Refuses options that have no effect with ``--limit``.

    Raises:
        ConfigError: naming the option.
    """
    unused = {"--study", "--results", "--log-level"} & set(given_options(context))
    if unused:
        raise ConfigError(
            "--limit keeps no results and no logs", got=min(unused), fix="Omit one of them."
        )
    if len(folds) > 1:
        raise ConfigError(
            "--limit tries one fold", got=f"--fold {folds[0]} and {folds[1]}", fix="Name one fold."
        )


def _require_positive(given: dict[str, int | None]) -> None:
    """Refuses numbers below 1.

    Raises:
        ConfigError: naming the option.
    """
    for name, value in given.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1", got=value, fix=f"Give {name} 3.")


_Trials: TypeAlias = Annotated[
    int | None, option("Number of finished trials to reach.", "N", default="budget.trials of FILE")
]
_Study: TypeAlias = Annotated[
    str | None, option("Name of the study.", "NAME", default="FILE without .yaml")
]
_RetryFailed: TypeAlias = Annotated[
    bool, flag("--retry-failed", "Train the failed trials of earlier runs again, first.")
]
_Confirm: TypeAlias = Annotated[
    int | None, option("Train the N best trials again with new seeds, and rank them on those.", "N")
]
_Seeds: TypeAlias = Annotated[int, option("New training seeds of each, with --confirm.", "N")]


def sweep(
    file: File,
    data: Data,
    trials: _Trials = None,
    settings: Settings = None,
    results: Results = RESULTS,
    pack_dir: PackDir = None,
    folds: FoldTable = None,
    study: _Study = None,
    address: Address = None,
    retry_failed: _RetryFailed = False,
    confirm: _Confirm = None,
    seeds: _Seeds = 3,
    exit_zero: ExitZero = False,
    log_level: LogLevel = "INFO",
) -> int:
    """Search a space on Ray; the same command resumes a study that was stopped."""
    from hms_ray.config.loading import load_space
    from hms_ray.config.shipped import find_space
    from hms_ray.distributed.cluster import check_connection

    _require_positive({"--confirm": confirm, "--seeds": seeds})
    n_trials = [] if trials is None else [f"budget.trials={trials}"]
    path = find_space(file)
    space, name = load_space(path, [*(settings or []), *n_trials]), study or path.stem
    check_connection(address)
    # Takes seconds.
    from hms_ray.simulate.ladder_data import simulation_of
    from hms_ray.sweep.command import sweep as run_sweep

    status = run_sweep(
        space,
        data,
        results,
        name,
        fold_table=folds,
        pack_dir=pack_dir,
        address=address,
        log_level=log_level,
        retry_failed=retry_failed,
        confirm=(0, 0) if confirm is None else (confirm, seeds),
        exit_zero=exit_zero,
        simulated=simulation_of(data) is not None,
    )
    if status == 0:
        print_views(name, results)
        print_next("blend", name, results=results)
    return status


def stop(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Study that runs now.")],
    trial: Annotated[
        int | None,
        typer.Argument(metavar="[TRIAL]", help="Number of a running trial.", show_default=False),
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Stop a running study, or one of its trials, from another shell.

    Needs to see the study's folder, not its machine. Waits until it has taken effect.
    """
    from hms_ray.storage.folder_names import require_inside
    from hms_ray.study.folder import StudyFolder
    from hms_ray.study.stop import stop as stop_study

    folder = StudyFolder.open(study, results)
    require_inside(folder.path, results)
    print(stop_study(folder, trial))
    print_next("leaderboard", study, results=results)
