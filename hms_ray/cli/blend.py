"""The command blend: predictions to weights, estimates and a blend that submit can use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

import typer

from hms_ray.cli.next_command import print_next
from hms_ray.cli.options import RESULTS, Results, flag, given_options, option
from hms_ray.errors import ConfigError

RowUnit: TypeAlias = Literal["eeg_votes", "eeg", "label"]
"""As ``data.unit``, whose module imports too much for a help text; so are the next two."""
Objective: TypeAlias = Literal["kl_all", "kl_4", "kl_10"]
METHODS: Final = (
    *("equal", "best_single", "greedy", "simplex", "simplex_recalibrated", "log_linear"),
    *("log_linear_context", "simplex_and_context", "stacked"),
)

_INPUTS, _METHOD = "Inputs", "Method and estimates"
_CONSTRAINTS, _SUBSETS = "Constraints on weights", "Subsets of models"


def blend(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="STUDY (all finished trials), STUDY/TRIAL, LADDER, LADDER/STEP, cache keys of "
            "one model's folds as KEY,KEY,..., or a CSV or parquet file of predictions.",
        ),
    ],
    results: Results = RESULTS,
    out: Annotated[
        Path | None,
        option(
            "Folder to write to.",
            "DIR",
            default="RESULTS/STUDY/blend for one study, else RESULTS/blend",
        ),
    ] = None,
    targets: Annotated[
        str | None,
        option(
            "Study, ladder or file with the votes of the rows.",
            "SOURCE",
            default="the first study or ladder",
            panel=_INPUTS,
        ),
    ] = None,
    rows: Annotated[
        Literal["same", "common"],
        option(
            "same: all models must predict the same rows; common: use the rows that all "
            "models predict.",
            panel=_INPUTS,
        ),
    ] = "same",
    columns: Annotated[
        list[str] | None,
        option(
            "Names of columns in files of predictions, or in one FILE, for row_id, eeg_id, "
            "eeg_sub_id, seizure, lpd, gpd, ...; can be repeated.",
            "[FILE:]OURS=THEIRS,...",
            panel=_INPUTS,
        ),
    ] = None,
    target_columns: Annotated[
        list[str] | None,
        option(
            "Names of columns in the file of targets, as for --columns, and for "
            "patient_id, total_votes, fold; can be repeated.",
            "OURS=THEIRS,...",
            panel=_INPUTS,
        ),
    ] = None,
    row_unit: Annotated[
        RowUnit | None,
        option("data.unit of the row ids, for files that do not state it.", panel=_INPUTS),
    ] = None,
    drop_identical: Annotated[
        bool,
        flag(
            "--drop-identical",
            "Count models with identical predictions as one: the first.",
            panel=_INPUTS,
        ),
    ] = False,
    renormalise: Annotated[
        bool,
        flag(
            "--renormalise",
            "Divide rows of files by their sums, if these are off by rounding only.",
            panel=_INPUTS,
        ),
    ] = False,
    method: Annotated[
        str,
        option(
            f"How to combine: {', '.join(METHODS)}; auto: chosen among them by nested KL "
            "(slower); NAME@kl_4: fit on rows with >= 4 votes, score on the rows of --fit-on.",
            "NAME",
            panel=_METHOD,
        ),
    ] = "simplex",
    fit_on: Annotated[
        Objective | None,
        option("Rows to fit and to score on.", default="the study's objective", panel=_METHOD),
    ] = None,
    splits: Annotated[
        int,
        option("Number of patient groups in the nested cross-validation.", "N", panel=_METHOD),
    ] = 5,
    seed: Annotated[
        int,
        option("Seed of these groups and of the bootstrap.", "S", panel=_METHOD),
    ] = 0,
    published: Annotated[
        str | None,
        option(
            "Use the weights of a published ensemble, by the name of its ladder step.",
            "STEP",
            panel=_CONSTRAINTS,
        ),
    ] = None,
    family: Annotated[
        list[str] | None,
        option(
            "Put the models whose names match into one family, with --max-family-weight; "
            "can be repeated.",
            "FAMILY=PATTERN",
            default="one family per study or ladder",
            panel=_CONSTRAINTS,
        ),
    ] = None,
    max_family_weight: Annotated[
        list[str] | None,
        option(
            "Largest total weight of a family; can be repeated.", "FAMILY=W", panel=_CONSTRAINTS
        ),
    ] = None,
    fixed_weight: Annotated[
        list[str] | None,
        option(
            "Fix the weight of this model instead of fitting it; can be repeated.",
            "MODEL=W",
            panel=_CONSTRAINTS,
        ),
    ] = None,
    subsets: Annotated[
        bool,
        flag(
            "--subsets",
            "Report which models are needed, and the smallest set that is good enough.",
            panel=_SUBSETS,
        ),
    ] = False,
    tolerance: Annotated[
        float,
        option(
            "How much higher the in-sample KL of the smallest set may be, with --subsets.",
            "NATS",
            panel=_SUBSETS,
        ),
    ] = 1e-3,
    cost: Annotated[
        str | None,
        option(
            "Report KL against cost: a CSV file with columns model and cost, or auto for "
            "minutes of training.",
            "FILE|auto",
            panel=_SUBSETS,
        ),
    ] = None,
) -> None:
    """Find the best blend of models and its estimated out-of-sample KL."""
    from hms_ray.blend.column_names import parse_columns
    from hms_ray.blend.fit_command import blend as fit_blend
    from hms_ray.blend.fit_command import blend_folder
    from hms_ray.blend.result_files import BLEND_FILE
    from hms_ray.blend.settings import Settings
    from hms_ray.blend.stored import read_blend
    from hms_ray.config.shipped import LADDER
    from hms_ray.ladder.manifest import read_manifest
    from hms_ray.report.write import report_line
    from hms_ray.study.folder import StudyFolder

    if out is not None and out.is_file():
        raise ConfigError("--out must be a folder", got=str(out))
    _require_partners(given_options(context), inputs, targets, subsets=subsets)
    settings = Settings(
        method=method,
        fit_on=fit_on,
        rows=rows,
        n_splits=splits,
        seed=seed,
        max_family_weights=max_family_weight or (),
        fixed_weights=fixed_weight or (),
        families=family or (),
        drop_identical=drop_identical,
        published=published,
        subsets=subsets,
        tolerance=tolerance,
        cost=cost,
        targets=targets,
        columns=parse_columns(columns or []),
        target_columns=parse_columns(target_columns or []),
        renormalise=renormalise,
        row_unit=row_unit,
        out=out,
    )
    manifest = None if published is None else read_manifest(LADDER)
    print(fit_blend(inputs, results, settings, manifest))
    folder = out or blend_folder(inputs, results)
    study = StudyFolder.find(inputs[0], results) if len(inputs) == 1 else None
    if study is not None and out is None:
        print(report_line(study))
    names = read_blend(folder / BLEND_FILE).without_models()
    given = [word for name in names for word in ("--predictions", f"{name}=FILE")]
    print_next("submit", folder, "--data", "DIR", *given, results=results)


def _require_partners(
    given: list[str], inputs: list[str], targets: str | None, *, subsets: bool
) -> None:
    """Refuses options that have no effect without others.

    Raises:
        ConfigError: naming the option and what it needs.
    """
    from hms_ray.competition.tables import is_table_file

    has_file = any(map(is_table_file, inputs))
    has_target_file = targets is not None and is_table_file(targets)
    for name, present, partner in (
        ("--tolerance", subsets, "--subsets"),
        ("--columns", has_file, "an INPUT that is a .csv or .parquet file"),
        ("--target-columns", has_target_file, "--targets FILE, a .csv or .parquet file"),
        ("--row-unit", has_file or has_target_file, "a .csv or .parquet file"),
        ("--renormalise", has_file or has_target_file, "a .csv or .parquet file"),
    ):
        if name in given and not present:
            raise ConfigError(f"{name} needs {partner}", got="none")
