"""The command blend: predictions to weights, estimates and sets."""

from __future__ import annotations

import argparse
from pathlib import Path

from hms_ray.commands.ladders import MANIFEST
from hms_ray.commands.options import Commands, add_results_option
from hms_ray.commands.predictions import add_apply_options, run_apply

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
    _add_input_options(command)
    _add_method_options(command)
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
    add_apply_options(command)
    command.set_defaults(call=_run_blend)
    return command


def _add_input_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--targets", metavar="STUDY|FILE", help="what was voted (the first study's)"
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
        "--rows",
        choices=("same", "common", *_OBJECTIVES),
        default="same",
        help="same: models must have the same rows; common: rows that all have"
        " (kl_all, kl_4, kl_10: the older spelling of --fit-on)",
    )


def _add_method_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--method",
        metavar="NAME|auto",
        default="simplex",
        help="how to combine (simplex); auto: chosen by nested KL, takes minutes",
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


def _run_blend(words: argparse.Namespace) -> int:
    if words.apply is not None:
        return run_apply(words, ", ".join(words.inputs))
    from hms_ray.errors import ConfigError

    if words.data is not None or words.predictions:
        raise ConfigError(
            "--data and --predictions belong to --apply", fix="Name the blend: --apply FILE."
        )
    if not words.inputs:
        raise ConfigError("blend needs something to blend", fix="Name INPUT, or --apply FILE.")
    from hms_ray.blending.columns import parse_columns
    from hms_ray.blending.command import blend
    from hms_ray.blending.settings import Settings
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
        out=words.out,
    )
    manifest = None if words.recipe is None else read_manifest(MANIFEST)
    print(blend(words.inputs, words.results, settings, manifest))
    return 0
