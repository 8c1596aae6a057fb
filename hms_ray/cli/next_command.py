"""The command that a person probably wants next."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path

from hms_ray.cli.options import RESULTS
from hms_ray.text import command_line


def print_next(*words: object, results: Path = RESULTS) -> None:
    """Prints one line, ``next: hms-ray ...``, that can be pasted into a shell.

    Args:
        words: of the command after ``hms-ray``; words in capitals such as ``DIR`` are for
            the reader to replace.
        results: of the command that ended; named if it is not the default.
    """
    print(f"next: {_command(*words, results=results)}")


def _command(*words: object, results: Path) -> str:
    place = [] if results == RESULTS else ["--results", str(results)]
    return command_line(*words, *place)


def print_views(study: str, results: Path) -> None:
    """Prints the commands that show a study's curves, and its search on a copy of the journal.

    Optuna Dashboard writes to what it opens: a note or a new trial would change the search.
    """
    from hms_ray.study.folder import JOURNAL

    copy = Path(tempfile.gettempdir()) / f"{study}.journal"
    copying = shlex.join(["cp", str(results / study / JOURNAL), str(copy)])
    showing = shlex.join(["optuna-dashboard", str(copy)])
    print(f"curves: {_command('board', study, results=results)}")
    print(f"search (pip install optuna-dashboard): {copying} && {showing}")


def same_data(
    command: str,
    file: str,
    data: Path,
    settings: list[str] | None,
    pack_dir: Path | None,
    folds: Path | None,
    address: str | None = None,
) -> list[object]:
    """The words of a command on the same data with the same settings."""
    words: list[object] = [command, file, "--data", data]
    for name, value in (("--pack-dir", pack_dir), ("--folds", folds), ("--address", address)):
        words += [] if value is None else [name, value]
    return words + [word for setting in settings or () for word in ("--set", setting)]
