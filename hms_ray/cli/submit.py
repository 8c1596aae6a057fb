"""The commands export and submit: models or a blend to a folder, or to a submission."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from hms_ray.cli.next_command import print_next
from hms_ray.cli.options import (
    RESULTS,
    Data,
    Device,
    PackDir,
    Results,
    Threads,
    TrustCode,
    flag,
    option,
)

Models: TypeAlias = Annotated[
    Literal["folds", "refit", "both"],
    option(
        "Models of a trial, or of each member of a blend: of its folds; of hms-ray refit; or both, "
        "each model counted once.",
        name="--models",
    ),
]


def submit(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="STUDY (its best trial) or STUDY/TRIAL, with @seeds the mean of all training "
            "seeds; a blend (blend.json or its folder); or the folder of an export.",
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
    columns: Annotated[
        list[str] | None,
        option(
            "Names of columns in these files, or in one FILE, for eeg_id, seizure, lpd, ...; "
            "can be repeated.",
            "[FILE:]OURS=THEIRS,...",
            default="those of the blend's files, or the usual names",
            panel="If TARGET is a blend",
        ),
    ] = None,
    renormalise: Annotated[
        bool,
        flag(
            "--renormalise",
            "Divide rows of these files by their sums, if these are off by rounding only.",
            panel="If TARGET is a blend",
        ),
    ] = False,
    models: Models = "folds",
    pack_dir: PackDir = None,
    device: Device = None,
    threads: Threads = 1,
    trust_code: TrustCode = False,
) -> None:
    """Predict the recordings of test.csv and write a checked submission.

    The predictions are the mean of a trial's models, or a blend of such means.
    """
    from hms_ray.blend.exported import EXPORT_FILE
    from hms_ray.blend.submit import submit as write_submission
    from hms_ray.predict.submit_trial import SubmitOptions

    options = SubmitOptions(
        data_dir=data,
        results=results,
        out=out,
        train_rows=train_rows,
        predictions=predictions or (),
        columns=columns or (),
        renormalise=renormalise,
        pack_dir=pack_dir,
        device=device,
        threads=threads,
        trust_code=trust_code,
        models=models,
    )
    print(write_submission(target, options))
    is_export = Path(target).name == EXPORT_FILE or (Path(target) / EXPORT_FILE).is_file()
    if not (train_rows or predictions or is_export):
        chosen = [] if models == "folds" else ["--models", models]
        print_next("export", target, "--out", "DIR", *chosen, results=results)


def export(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="STUDY (its best trial) or STUDY/TRIAL, both also with @seeds; or a blend: "
            "blend.json or its folder.",
        ),
    ],
    out: Annotated[Path, option("New folder to write.", "DIR")],
    results: Results = RESULTS,
    dtype: Annotated[
        Literal["stored", "float16"],
        option("Of the weights: stored, as they are; float16, half the size."),
    ] = "stored",
    no_wheel: Annotated[
        bool, flag("--no-wheel", "Leave out the wheel of hms_ray and of packages it needs.")
    ] = False,
    models: Models = "folds",
) -> None:
    """Write models as a folder that submit can use without network, such as on Kaggle."""
    from hms_ray.blend.export import ExportOptions
    from hms_ray.blend.export import export as write_export

    options = ExportOptions(
        out=out, results=results, dtype=dtype, wheel=not no_wheel, models=models
    )
    print(write_export(target, options))
    print_next("submit", out, "--data", "DIR")
