"""Errors of single files, each with the name that reports give its kind."""

from __future__ import annotations

from typing import ClassVar

from hms_ray.errors import DataError, Fault


class MissingFileError(DataError):
    """A file that is named or needed, and is not there."""

    kind: ClassVar[str] = "missing_file"


class UnreadableFileError(DataError):
    """A file that is cut, damaged, of another format or not permitted."""

    kind: ClassVar[str] = "unreadable_file"


class WrongColumnsError(DataError):
    """A file or table that lacks columns."""

    kind: ClassVar[str] = "wrong_columns"


class WrongTypeError(DataError):
    """A column whose values are of another type."""

    kind: ClassVar[str] = "wrong_type"


class EmptyFileError(DataError):
    """A file or table without a row."""

    kind: ClassVar[str] = "empty_file"


def fault_of(error: DataError, file: str, number: int | None = None) -> Fault:
    """The fault of a report that an error stands for.

    Args:
        error: one of this module's, or any other of a file.
        file: path relative to the competition folder.
        number: id of the recording.
    """
    got = "" if error.got is None else f", got {error.got}"
    return Fault(
        getattr(error, "kind", "unusable"),
        f"{error.rule}{got}",
        file,
        None if number is None else str(number),
    )
