"""The command submit: models or a blend to a checked submission."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hms_ray.cli.options import RESULTS, Data, Device, PackDir, Results, Threads, flag, option


def submit(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="STUDY (its best trial), STUDY/TRIAL, or a blend: blend.json or its folder.",
        ),
    ],
    data: Data,
    out: Annotated[
        Path | None,
        option(
            "File to write, .csv or .parquet.",
            "FILE",
            default="submission.csv; with --train-rows predictions.csv",
        ),
    ] = None,
    results: Results = RESULTS,
    train_rows: Annotated[
        bool,
        flag(
            "--train-rows",
            "Predict the rows of train.csv instead of test.csv.",
            panel="If TARGET is a study or a trial",
        ),
    ] = False,
    predictions: Annotated[
        list[str] | None,
        option(
            "Predictions of the test recordings by a member without stored models, "
            "CSV or parquet; can be repeated.",
            "NAME=FILE",
            panel="If TARGET is a blend",
        ),
    ] = None,
    pack_dir: PackDir = None,
    device: Device = None,
    threads: Threads = 1,
) -> None:
    """Predict the recordings of test.csv and write a checked submission.

    The predictions are the mean of a trial's fold models, or a blend of such means.
    """
    from hms_ray.blend.submit import submit as write_submission
    from hms_ray.predict.submit_trial import SubmitOptions

    options = SubmitOptions(
        data_dir=data,
        results=results,
        out=out,
        train_rows=train_rows,
        predictions=predictions or (),
        pack_dir=pack_dir,
        device=device,
        threads=threads,
    )
    print(write_submission(target, options))
