"""Locks between commands."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hms_ray.errors import StudyError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Held while a command makes or runs the study of a folder.

    Raises:
        StudyError: where another command holds it.
    """
    with (path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyError(
                "a study is run by one command at a time",
                got="another one at work",
                where=path,
                fix="Wait for it, or stop it first.",
            ) from None
        yield
