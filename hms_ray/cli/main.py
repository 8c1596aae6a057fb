"""The program ``hms-ray``: its commands, and how a command ends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hms_ray import __version__
from hms_ray.cli import (
    bench,
    blend,
    board,
    check_storage,
    data,
    holdout,
    ladder,
    launch,
    look,
    refit,
    rows,
    space,
    store,
    study,
    submit,
)
from hms_ray.cli.command_names import RENAMED, Command, Commands, renamed
from hms_ray.cli.options import COMMAND
from hms_ray.distributed.process_state import interrupt_status, set_end_status, stop_signals
from hms_ray.errors import HmsRayError, StoppedByRequest
from hms_ray.storage.faults import storage_error

_AFTER_STOP: Final = {
    **dict.fromkeys(("pack", "train", "sweep", "ladder", "refit"), "; the same command resumes"),
    "simulate": "; the same command starts over",
}


_TRAIN: Final = "Train"
_COMMANDS: Final[dict[str, tuple[Callable[..., Any], ...]]] = {
    "Data": (data.check, data.simulate, data.oracle, data.spectrogram, data.pack),
    _TRAIN: (
        space.space,
        bench.bench,
        study.train,
        study.sweep,
        study.stop,
        launch.launch,
        check_storage.check_storage,
    ),
    "Look": (
        look.studies,
        look.show,
        look.leaderboard,
        look.report,
        board.board,
        rows.rows,
        look.replay,
        store.store,
    ),
    "Use": (blend.blend, holdout.holdout, refit.refit, submit.submit, submit.export),
}
"""Group in the help -> its commands."""
_DEBUG: Final = "hms_ray.debug"
"""Key of a context's ``meta``: whether errors end with their traceback."""

app = typer.Typer(cls=Commands, add_completion=False, rich_markup_mode="rich")
for _group, _functions in _COMMANDS.items():
    for _function in _functions:
        app.command(cls=Command, rich_help_panel=_group)(_function)
app.add_typer(ladder.app, name="ladder", rich_help_panel=_TRAIN)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"hms-ray {__version__}")
        raise typer.Exit


def _remember(context: typer.Context, debug: bool) -> None:
    context.meta[_DEBUG] = debug or context.meta.get(_DEBUG, False)


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar="",
            callback=_print_version,
            is_eager=True,
            help="Print the version.",
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            metavar="",
            callback=_remember,
            is_eager=True,
            expose_value=False,
            help="Show the traceback of an error.",
        ),
    ] = False,
) -> None:
    """Experiment sweeps on Ray for HMS - Harmful Brain Activity Classification.

    Options of a command: hms-ray COMMAND --help
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: the command line without the program's name; default: that of the process.

    Returns:
        Exit status: 0 done, or with ``--exit-zero-when-final`` an error that a restart would not
        change; 1 the command's own "no" (faults in a folder, failed steps of a
        ladder, a sweep that failures left short); 2 an error, described on standard error;
        130 stopped by Ctrl-C; 143 stopped by SIGTERM.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = typer.main.get_command(app)
    meta: dict[str, Any] = {}
    try:
        with (
            stop_signals(),
            command.make_context("hms-ray", list(arguments), obj=arguments) as context,
        ):
            meta = context.meta
            return int(command.invoke(context) or 0)
    except typer.Exit as end:
        return end.exit_code
    except typer.TyperException as error:
        status = _report(*_usage_error(error, meta.get(COMMAND, "hms-ray")))
        return _unless_final(status, arguments)
    except HmsRayError as error:
        if meta.get(_DEBUG):
            raise
        from hms_ray.study.run_outcome import is_final

        status = _report(meta.get(COMMAND), str(error))
        return _unless_final(status, arguments) if is_final(error) else status
    except KeyboardInterrupt as interrupt:
        name = str(meta.get(COMMAND, "hms-ray")).removeprefix("hms-ray ")
        print(f"\nhms-ray {name}: stopped{_AFTER_STOP.get(name, '')}.", file=sys.stderr)
        status = interrupt_status(interrupt)
        if isinstance(interrupt, StoppedByRequest):
            # Whoever stops a study does not want a scheduler to start it again.
            status = _unless_final(status, arguments)
        set_end_status(status)
        return status
    except BrokenPipeError:
        # The reader of a pipe such as `| head` has seen enough.
        from hms_ray.display.live import discard

        discard(sys.stdout)
        return 0
    except OSError as error:
        if meta.get(_DEBUG):
            raise
        # A wrong path is no fault of storage.
        if not isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError)):
            found = storage_error(error, Path(error.filename or "."))
            if found is not None:
                return _report(meta.get(COMMAND), str(found))
        where = f": {error.filename}" if error.filename else ""
        return _report(meta.get(COMMAND), f"{error.strerror or error}{where}")


def _unless_final(status: int, arguments: Sequence[str]) -> int:
    """The exit status of an end that a restart would not, or must not, change."""
    from hms_ray.study.run_outcome import EXIT_ZERO

    if EXIT_ZERO not in arguments:
        return status
    print(f"no restart is needed: exit status 0, by {EXIT_ZERO}", file=sys.stderr)
    return 0


def _usage_error(error: typer.TyperException, path: str) -> tuple[str, str]:
    """Command and message of a command line that cannot be parsed."""
    context = getattr(error, "ctx", None)
    path = path if context is None else context.command_path
    option = getattr(error, "option_name", None)
    message = error.format_message().replace("Value error, ", "")
    if option is not None:
        former = f"{path.removeprefix('hms-ray ')} {option}"
        if former in RENAMED:
            return path, str(renamed(former))
        if near := getattr(error, "possibilities", None):
            message = f"No such option: {option}. Did you mean {near[0]}?"
    end = "" if message.endswith(("?", ".")) else "."
    return path, f"{message}{end} See: {path} --help"


def _report(command: str | None, message: str) -> int:
    print(f"{command or 'hms-ray'}: {message}", file=sys.stderr)
    return 2
