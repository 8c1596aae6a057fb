"""Errors of single files, each with the kind that a report shows."""

from __future__ import annotations

from typing import ClassVar

from hms_ray.errors import DataError, Fault


class MissingFileError(DataError):
    """A required file that does not exist."""

    kind: ClassVar[str] = "missing_file"


class UnreadableFileError(DataError):
    """A file that is truncated, damaged, of another format or not readable for this user."""

    kind: ClassVar[str] = "unreadable_file"


class WrongColumnsError(DataError):
    """A file or table that lacks columns."""

    kind: ClassVar[str] = "wrong_columns"


class WrongTypeError(DataError):
    """A column with values of the wrong type."""

    kind: ClassVar[str] = "wrong_type"


class EmptyFileError(DataError):
    """A file or table without rows."""

    kind: ClassVar[str] = "empty_file"


def fault_of(error: DataError, file: str, number: int | None = None) -> Fault:
    """An error of a file as a fault for a report.

    Args:
        error: one of this module, or any other error of a file.
        file: path relative to the competition folder.
        number: id of the recording.
    """
    message = error.rule if error.got is None else f"{error.rule}, got {error.got}"
    kind = getattr(error, "kind", "unusable")
    return Fault(kind, message, file, None if number is None else str(number), error.fix)
