"""Options that several commands share, and how a default stands in the help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

import typer

DATA, TRAIN, LOOK, USE = "Data", "Train", "Look", "Use"
"""Groups of commands in the help."""

DEBUG, COMMAND = "hms_ray.debug", "hms_ray.command"
"""What a context remembers for the report of an error."""


def with_default(text: str, default: str) -> str:
    """A help text that ends with a default which is computed when the command runs."""
    return f"{text} [dim]\\[default: {default}][/dim]"


def _remember(context: typer.Context, debug: bool) -> bool:
    context.meta[DEBUG] = debug or context.meta.get(DEBUG, False)
    return debug


Debug: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--debug",
        metavar="",
        callback=_remember,
        is_eager=True,
        help="Show the traceback of an error.",
    ),
]
Results: TypeAlias = Annotated[
    Path, typer.Option("--results", metavar="DIR", help="Folder of all studies and ladders.")
]
RESULTS: Final = Path("results")
Data: TypeAlias = Annotated[Path, typer.Option("--data", metavar="DIR", help="Competition folder.")]
Settings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Set a value of the experiment; can be repeated."),
]
PackDir: TypeAlias = Annotated[
    Path | None,
    typer.Option("--pack-dir", metavar="DIR", help=with_default("Folder of packs.", "DATA/packed")),
]
FoldTable: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--folds",
        metavar="FILE",
        help=with_default(
            "Table of folds, CSV or parquet: row_id, patient_id, fold.", "drawn by patient"
        ),
    ),
]
LogLevel: TypeAlias = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR"],
    typer.Option(
        "--log-level",
        metavar="LEVEL",
        case_sensitive=False,
        help="Least level of records in log files: DEBUG, INFO, WARNING or ERROR.",
    ),
]
Address: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help=with_default("Running Ray cluster.", "start Ray on this machine"),
    ),
]
Local: TypeAlias = Annotated[
    bool,
    typer.Option("--local", metavar="", help="Run in this process without Ray; breakpoints work."),
]
LocalThreads: TypeAlias = Annotated[
    int, typer.Option("--threads", metavar="N", help="Torch threads, with --local.")
]
Threads: TypeAlias = Annotated[int, typer.Option("--threads", metavar="N", help="Torch threads.")]
Device: TypeAlias = Annotated[
    Literal["cpu", "cuda"] | None,
    typer.Option("--device", help=with_default("Where the models run.", "cuda if available")),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON.")]


def given_options(context: typer.Context) -> list[str]:
    """Options on the command line, also those given with their default value."""
    return [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.param_type_name == "option" and _is_given(context, parameter.name)
    ]


def _is_given(context: typer.Context, name: str | None) -> bool:
    source = context.get_parameter_source(name or "")
    return source is not None and source.name == "COMMANDLINE"
