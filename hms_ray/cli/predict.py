"""Commands that write predictions of recordings: predict, blend --apply."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hms_ray.cli.given_options import Options
from hms_ray.cli.options import Commands, add_study_options

if TYPE_CHECKING:
    from hms_ray.predict.command import Place


def add_predict(commands: Commands) -> argparse.ArgumentParser:
    """Adds ``predict``."""
    command = commands.add_parser(
        "predict",
        help="predict recordings with a trial's fold models",
        description="Averages what the fold models of a trial say of every recording of "
        "DIR/test.csv and writes a submission.",
    )
    add_study_options(command)
    command.add_argument(
        "trial", metavar="TRIAL", type=int, nargs="?", help="number of a trial (the best one)"
    )
    command.add_argument(
        "--data", metavar="DIR", type=Path, required=True, help="competition folder"
    )
    command.add_argument(
        "--train-rows",
        action="store_true",
        help="predict the rows of train.csv instead, by row_id",
    )
    command.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="file to write, .csv or .parquet (submission.csv; with --train-rows predictions.csv)",
    )
    _add_place_options(command)
    command.set_defaults(call=_run_predict)
    return command


def add_apply_options(command: Options) -> None:
    """Adds ``--apply`` and what only it needs to ``blend``."""
    command.add_argument(
        "--apply",
        metavar="FILE",
        type=Path,
        help="instead of fitting: blend predictions of DIR/test.csv as this blend.json says",
    )
    command.add_argument(
        "--data", metavar="DIR", type=Path, help="competition folder with test.csv"
    )
    command.add_argument(
        "--predictions",
        metavar="NAME=FILE",
        action="append",
        default=[],
        help="predictions of the test recordings by a member brought from elsewhere, CSV or "
        "parquet (repeatable)",
    )
    _add_place_options(command)


def _add_place_options(command: Options) -> None:
    command.add_argument(
        "--pack-dir", metavar="DIR", type=Path, help="folder of packs (DATA/packed)"
    )
    command.add_argument("--threads", metavar="N", type=int, default=1, help="torch threads (1)")
    command.add_argument(
        "--device", choices=("cpu", "cuda"), help="where models run (the GPU, if there is one)"
    )


def _place(words: argparse.Namespace) -> Place:
    from hms_ray.predict.command import Place

    return Place(words.data, words.results, words.pack_dir, words.device, words.threads)


def _run_predict(words: argparse.Namespace) -> int:
    from hms_ray.predict.command import predict_study

    place = _place(words)
    print(predict_study(words.study, words.trial, place, words.out, train_rows=words.train_rows))
    return 0


def run_apply(words: argparse.Namespace, named: object) -> int:
    """Runs ``blend --apply``.

    Args:
        words: with what ``add_apply_options`` adds, ``--out`` and ``--results``.
        named: what else is to be blended, which must be nothing.

    Raises:
        ConfigError: where anything is, or no data are named.
    """
    from hms_ray.blend.apply_command import apply_to_file
    from hms_ray.errors import ConfigError

    if named:
        raise ConfigError("--apply takes the place of what is blended", got=str(named))
    if words.data is None:
        raise ConfigError("--apply needs recordings", fix="Name a folder with --data DIR.")
    print(apply_to_file(words.apply, _place(words), words.out, words.predictions))
    return 0
