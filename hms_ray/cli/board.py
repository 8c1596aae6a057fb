"""The command board: TensorBoard of a study or ladder."""

from __future__ import annotations

from typing import Annotated

import typer

from hms_ray.cli.options import RESULTS, PackDir, Port, Results, flag, option
from hms_ray.errors import ConfigError


def board(
    target: Annotated[
        str, typer.Argument(metavar="STUDY|LADDER", help="Study or ladder, or path of its folder.")
    ],
    trials: Annotated[
        str | None, option("Show these trials.", "3,7,12", default="all, of too many the best 499")
    ] = None,
    best: Annotated[
        int | None, typer.Option("--best", metavar="N", min=1, help="Show the N best trials.")
    ] = None,
    images: Annotated[
        list[int] | None,
        option("Make the images of this trial, besides the best one; can be repeated.", "TRIAL"),
    ] = None,
    folds: Annotated[
        bool, flag("--folds", "Show one run per fold, of the trials that have ended by now.")
    ] = False,
    pack_dir: PackDir = None,
    port: Port = None,
    results: Results = RESULTS,
) -> None:
    """Serve TensorBoard to this machine, with the objective pinned, until Ctrl-C.

    The images of the best trial are made first, if it has none.
    """
    if trials is not None and best is not None:
        raise ConfigError("trials are chosen by --trials or by --best", got="both", fix="Omit one.")
    if folds and images:
        raise ConfigError(
            "runs of folds have no images", got="--folds and --images", fix="Omit one."
        )
    numbers = _numbers(trials) if trials is not None else ()
    from hms_ray.report.board_command import BoardOptions, serve_board

    serve_board(
        target,
        BoardOptions(
            results=results,
            trials=numbers,
            best=best,
            images=tuple(images or ()),
            pack_dir=pack_dir,
            folds=folds,
            port=port,
        ),
    )


def _numbers(text: str) -> tuple[int, ...]:
    """Numbers of trials.

    Raises:
        ConfigError: if one is no number.
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not part.isdecimal():
            raise ConfigError(
                "--trials must be numbers with commas", got=repr(text), fix="Write --trials 3,7,12."
            )
    return tuple(map(int, parts))
