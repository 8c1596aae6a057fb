"""Options that several commands share, and how a default stands in the help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import typer

COMMAND: Final = "hms_ray.command"
"""Key of a context's ``meta``: the command that runs, for the report of an error."""


def option(
    text: str,
    metavar: str | None = None,
    *,
    default: str | None = None,
    panel: str | None = None,
    name: str | None = None,
) -> Any:
    """An option with a value; ``default`` describes one that is found when the command runs."""
    names = [] if name is None else [name]
    end = "" if default is None else f" [dim]\\[default: {default}][/dim]"
    return typer.Option(*names, metavar=metavar, help=text + end, rich_help_panel=panel)


def flag(name: str, text: str, *, panel: str | None = None) -> Any:
    """An option without a value."""
    return typer.Option(name, metavar="", help=text, rich_help_panel=panel)


Results: TypeAlias = Annotated[
    Path, option("Folder of all studies and ladders.", "DIR", name="--results")
]
RESULTS: Final = Path("results")
File: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="Experiment or search space: a YAML file, or the name of a shipped one, such as demo "
        "or ladder/9_panels_4.",
    ),
]
Data: TypeAlias = Annotated[Path, option("Competition folder.", "DIR", name="--data")]
Settings: TypeAlias = Annotated[
    list[str] | None,
    option("Set a value of the experiment; can be repeated.", "A.B=C", name="--set"),
]
PackDir: TypeAlias = Annotated[
    Path | None, option("Folder of packs.", "DIR", default="DATA/packed", name="--pack-dir")
]
FoldTable: TypeAlias = Annotated[
    Path | None,
    option(
        "Table of folds, CSV or parquet: row_id, patient_id, fold.",
        "FILE",
        default="drawn by patient",
        name="--folds",
    ),
]
LogLevel: TypeAlias = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR"],
    typer.Option(
        "--log-level",
        metavar="LEVEL",
        case_sensitive=False,
        help="Lowest level that log files record: DEBUG, INFO, WARNING or ERROR.",
    ),
]
Address: TypeAlias = Annotated[
    str | None,
    option(
        "Running Ray cluster.", "HOST:PORT", default="start Ray on this machine", name="--address"
    ),
]
Local: TypeAlias = Annotated[
    bool, flag("--local", "Run in this process without Ray; breakpoints work.")
]
LocalThreads: TypeAlias = Annotated[
    int, option("Torch threads, with --local.", "N", name="--threads")
]
Threads: TypeAlias = Annotated[int, option("Torch threads.", "N", name="--threads")]
Device: TypeAlias = Annotated[
    Literal["cpu", "cuda"] | None,
    option("Where the models run.", default="cuda if available", name="--device"),
]
TrustCode: TypeAlias = Annotated[
    bool,
    flag("--trust-code", "Run the code of models from elsewhere that the study or export names."),
]
Port: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--port",
        metavar="N",
        min=1,
        max=65535,
        help="Port of this machine for the page. [dim]\\[default: a free one][/dim]",
    ),
]
ExitZero: TypeAlias = Annotated[
    bool,
    flag(
        "--exit-zero-when-final",
        "Exit with 0 also where a restart would end in the same way, such as after an error of "
        "the configuration or the data or too many failed trials; for schedulers that restart.",
    ),
]
Json: TypeAlias = Annotated[bool, flag("--json", "Print JSON.")]


def given_options(context: typer.Context) -> list[str]:
    """Options on the command line, also those given with their default value."""
    options = [one for one in context.command.params if one.param_type_name == "option"]
    sources = [context.get_parameter_source(one.name or "") for one in options]
    return [
        one.opts[0]
        for one, source in zip(options, sources, strict=True)
        if source is not None and source.name == "COMMANDLINE"
    ]


def require_local_options(context: typer.Context, *, local: bool) -> None:
    """Refuses options that have no effect with, or without, ``--local``.

    Raises:
        ConfigError: naming the option.
    """
    from hms_ray.errors import ConfigError

    given = given_options(context)
    if local and "--address" in given:
        raise ConfigError("--local does not use a cluster", got="--address", fix="Omit one.")
    for name in ("--limit", "--trace"):
        if not local and name in given:
            raise ConfigError(f"{name} needs --local", got=name, fix="Add --local.")
    if not local and "--threads" in given:
        raise ConfigError(
            "--threads needs --local",
            got="--threads",
            fix="Set the threads of workers: --set resources.cpus_per_worker=N",
        )
