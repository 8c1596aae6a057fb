"""Commands on studies: train, sweep, leaderboard."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hms_ray.cli.options import Commands, add_results_option, add_study_options

if TYPE_CHECKING:
    from hms_ray.config.space import Space


def _add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", type=Path, help="experiment or search space, YAML")
    command.add_argument(
        "--data", metavar="DIR", type=Path, required=True, help="competition folder"
    )
    command.add_argument(
        "--set", metavar="A.B=C", action="append", default=[], help="change a value"
    )
    add_results_option(command)
    command.add_argument(
        "--pack-dir", metavar="DIR", type=Path, help="folder of packs (DATA/packed)"
    )
    command.add_argument(
        "--folds", metavar="FILE", type=Path, help="fold table to use: row_id, patient_id, fold"
    )
    command.add_argument("--study", metavar="NAME", help="name below the results folder")
    command.add_argument("--address", metavar="ADDR", help="running Ray cluster (starts its own)")


def add_train(commands: Commands) -> argparse.ArgumentParser:
    """Adds ``train``."""
    command = commands.add_parser("train", help="train one experiment")
    _add_run_options(command)
    command.add_argument(
        "--local", action="store_true", help="in this process, without Ray: breakpoints work"
    )
    command.add_argument(
        "--fold",
        metavar="K",
        type=int,
        action="append",
        help="only this fold (with --local; repeatable)",
    )
    command.add_argument(
        "--threads", metavar="N", type=int, default=1, help="torch threads (with --local; 1)"
    )
    command.set_defaults(call=_run_train)
    return command


def _run_train(words: argparse.Namespace) -> int:
    from hms_ray.config.loading import load_space
    from hms_ray.experiment.local_command import train_locally

    space = load_space(words.file, words.set)
    if words.local:
        return train_locally(
            space,
            words.data,
            words.results,
            name=words.study,
            folds=words.fold,
            fold_table=words.folds,
            pack_dir=words.pack_dir,
            threads=words.threads,
        )
    if words.fold:
        from hms_ray.errors import ConfigError

        raise ConfigError("--fold needs --local", fix="A study on Ray trains all folds.")
    return _sweep_as_told(space.alone(), words.study or space.experiment.name, words)


def add_sweep(commands: Commands) -> argparse.ArgumentParser:
    """Adds ``sweep``."""
    command = commands.add_parser("sweep", help="search a space on Ray")
    _add_run_options(command)
    command.add_argument("--trials", metavar="N", type=int, help="finished trials to end with")
    command.set_defaults(call=_run_sweep)
    return command


def _run_sweep(words: argparse.Namespace) -> int:
    from hms_ray.config.loading import load_space

    settings = list(words.set)
    if words.trials is not None:
        settings.append(f"study.n_trials={words.trials}")
    space = load_space(words.file, settings)
    return _sweep_as_told(space, words.study or words.file.stem, words)


def _sweep_as_told(space: Space, name: str, words: argparse.Namespace) -> int:
    from hms_ray.sweep.command import sweep

    return sweep(
        space,
        words.data,
        words.results,
        name,
        fold_table=words.folds,
        pack_dir=words.pack_dir,
        address=words.address,
    )


def add_leaderboard(commands: Commands) -> argparse.ArgumentParser:
    """Adds ``leaderboard``."""
    command = commands.add_parser("leaderboard", help="print a study's trials, best first")
    add_study_options(command)
    command.set_defaults(call=_run_leaderboard)
    return command


def _run_leaderboard(words: argparse.Namespace) -> int:
    from hms_ray.study.leaderboard import print_leaderboard

    print_leaderboard(words.study, words.results)
    return 0
