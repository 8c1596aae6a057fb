"""The command blend: predictions to weights, estimates and sets."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from hms_ray.cli.given_options import Options, given_options, options_of
from hms_ray.cli.ladder import MANIFEST
from hms_ray.cli.options import Commands, add_results_option
from hms_ray.cli.predict import add_apply_options, run_apply

ROW_UNITS = ("eeg_votes", "eeg", "label")
"""As ``data.unit`` has them."""

METHODS = (
    *("equal", "best_single", "greedy", "simplex", "simplex_recalibrated", "log_linear"),
    *("log_linear_context", "simplex_and_context", "stacked"),
)
"""All ensemble methods; listed here because the registry imports more than help needs."""

_OBJECTIVES = ("kl_all", "kl_4", "kl_10")


def add_blend(commands: Commands) -> argparse.ArgumentParser:
    """Adds ``blend``."""
    command = commands.add_parser("blend", help="best blend of models and what it is worth")
    command.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="*",
        help="study, STUDY/TRIAL, ladder, LADDER/STEP, fold keys KEY,KEY,..., CSV or parquet file",
    )
    add_results_option(command)
    command.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="folder to write to; with --apply the file (submission.csv)",
    )
    fitting = command.add_argument_group("fitting")
    _add_input_options(fitting)
    _add_method_options(fitting)
    _add_sets_options(fitting)
    applying = command.add_argument_group("applying a blend that was fitted")
    add_apply_options(applying)
    command.set_defaults(call=partial(_run_blend, command, fitting, applying))
    return command


def _add_sets_options(command: Options) -> None:
    command.add_argument(
        "--sets", action="store_true", help="tell which models are needed and how few are enough"
    )
    command.add_argument(
        "--tolerance",
        metavar="NATS",
        type=float,
        default=1e-3,
        help="what the smallest set may lose (0.001)",
    )
    command.add_argument(
        "--cost",
        metavar="FILE|auto",
        help="KL against cost: CSV with model and cost, or auto: minutes of training",
    )


def _add_input_options(command: Options) -> None:
    command.add_argument(
        "--targets", metavar="STUDY|LADDER|FILE", help="what was voted (the first study's)"
    )
    command.add_argument(
        "--columns",
        metavar="OURS=THEIRS,...",
        action="append",
        default=[],
        help="columns of predictions: row_id, eeg_id, eeg_sub_id, seizure, lpd, gpd, ...",
    )
    command.add_argument(
        "--target-columns",
        metavar="OURS=THEIRS,...",
        action="append",
        default=[],
        help="columns of a file of targets: these and patient_id, total_votes, fold",
    )
    command.add_argument(
        "--row-unit",
        choices=ROW_UNITS,
        help="data.unit whose row ids the files have; needed where it cannot be told",
    )
    command.add_argument(
        "--rows",
        choices=("same", "common", *_OBJECTIVES),
        default="same",
        help="same: models must have the same rows; common: rows that all have"
        " (kl_all, kl_4, kl_10: the older spelling of --fit-on)",
    )


def _add_method_options(command: Options) -> None:
    command.add_argument(
        "--method",
        metavar="NAME|auto",
        default="simplex",
        help=f"how to combine (simplex): {', '.join(METHODS)}; auto: chosen among them by "
        "nested KL, takes longer; NAME@kl_4: fitted on other rows than are scored",
    )
    command.add_argument(
        "--fit-on", choices=_OBJECTIVES, help="rows to fit and choose on (the study's objective)"
    )
    command.add_argument(
        "--splits",
        metavar="N",
        type=int,
        default=5,
        help="groups of patients for the nested estimate (5)",
    )
    command.add_argument(
        "--seed", metavar="S", type=int, default=0, help="seed of the groups and the bootstrap (0)"
    )
    command.add_argument(
        "--family",
        metavar="FAMILY=PATTERN",
        action="append",
        default=[],
        help="models whose names fit are a family (a study's trials are one; repeatable)",
    )
    command.add_argument(
        "--cap",
        metavar="FAMILY=W",
        action="append",
        default=[],
        help="the most that a family weighs together (repeatable)",
    )
    command.add_argument(
        "--fix",
        metavar="MODEL=W",
        action="append",
        default=[],
        help="the weight of a model (repeatable)",
    )
    command.add_argument(
        "--recipe", metavar="STEP", help="a published ensemble, by its step of the ladder"
    )


def _run_blend(
    command: argparse.ArgumentParser,
    fitting: argparse._ArgumentGroup,
    applying: argparse._ArgumentGroup,
    words: argparse.Namespace,
) -> int:
    from hms_ray.errors import ConfigError

    given = given_options(command, words.said[1:])
    if words.apply is not None:
        if foreign := options_of(fitting, given):
            raise ConfigError(
                "--apply takes a blend as it was fitted, without options of fitting",
                got=", ".join(foreign),
                fix="Leave them out, or fit another blend first, without --apply.",
            )
        return run_apply(words, ", ".join(words.inputs))
    if foreign := options_of(applying, given):
        raise ConfigError(
            "options of applying a blend need one",
            got=f"{', '.join(foreign)} without --apply",
            fix="Name the blend: --apply FILE.",
        )
    if not words.inputs:
        raise ConfigError("blend needs something to blend", fix="Name INPUT, or --apply FILE.")
    if words.out is not None and words.out.is_file():
        raise ConfigError("--out must be a folder where a blend is fitted", got=f"{words.out}")
    _require_company(words, given)
    return _fit(words)


def _require_company(words: argparse.Namespace, given: dict[str, str]) -> None:
    """Refuses options of fitting that say nothing without others.

    Raises:
        ConfigError: naming the option and what it belongs to.
    """
    from hms_ray.blend.column_names import FILE_SUFFIXES
    from hms_ray.errors import ConfigError

    of_files = any(Path(word).suffix in FILE_SUFFIXES for word in words.inputs)
    of_target_file = words.targets is not None and Path(words.targets).suffix in FILE_SUFFIXES
    for name, there, company in (
        ("tolerance", words.sets, "--sets"),
        ("columns", of_files, "an INPUT that is a .csv or .parquet file"),
        ("target_columns", of_target_file, "--targets FILE, a .csv or .parquet file"),
        ("row_unit", of_files or of_target_file, "a .csv or .parquet file"),
    ):
        if name in given and not there:
            raise ConfigError(f"{given[name]} needs {company}", got="none")
    if words.rows in _OBJECTIVES and words.fit_on is not None:
        raise ConfigError(
            f"--rows {words.rows} is the older spelling of --fit-on",
            got=f"--fit-on {words.fit_on} beside it",
            fix="Give --fit-on alone.",
        )


def _fit(words: argparse.Namespace) -> int:
    from hms_ray.blend.column_names import parse_columns
    from hms_ray.blend.fit_command import blend
    from hms_ray.blend.settings import Settings
    from hms_ray.ladder.manifest import read_manifest

    older = words.rows if words.rows in _OBJECTIVES else None
    settings = Settings(
        method=words.method,
        fit_on=words.fit_on or older,
        rows="common" if words.rows == "common" else "same",
        n_splits=words.splits,
        seed=words.seed,
        caps=words.cap,
        fixed=words.fix,
        families=words.family,
        recipe=words.recipe,
        sets=words.sets,
        tolerance=words.tolerance,
        cost=words.cost,
        targets=words.targets,
        columns=parse_columns(words.columns),
        target_columns=parse_columns(words.target_columns),
        row_unit=words.row_unit,
        out=words.out,
    )
    manifest = None if words.recipe is None else read_manifest(MANIFEST)
    print(blend(words.inputs, words.results, settings, manifest))
    return 0
