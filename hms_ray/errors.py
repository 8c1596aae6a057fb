"""One exception tree for everything that a user can put right.

A message has four parts, of which the first is required: the rule that was
broken, the value received, where it was found (a file, a row, an id), and what
to do about it. They are kept apart so that programs can read them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hms_ray.text import shortened_list


class HmsRayError(Exception):
    """Base of all errors that hms_ray raises on purpose.

    Args:
        rule: what must hold, as one sentence without a full stop.
        got: the value received; shown with ``repr`` unless it is text.
        where: the file, row or id concerned.
        fix: what the user can do.
    """

    def __init__(
        self, rule: str, *, got: object = None, where: object = None, fix: str | None = None
    ) -> None:
        self.rule, self.got, self.where, self.fix = rule, got, where, fix
        parts = [rule]
        if got is not None:
            parts.append(f"got {got if isinstance(got, str) else repr(got)}")
        if where is not None:
            parts.append(f"in {where}")
        text = ", ".join(parts)
        super().__init__(f"{text}. {fix}" if fix else text)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword-only arguments do not survive pickling by
        # themselves, and Ray pickles what a worker raises.
        return (_rebuild, (type(self), self.rule, self.got, self.where, self.fix))


def _rebuild(
    kind: type[HmsRayError], rule: str, got: object, where: object, fix: str | None
) -> HmsRayError:
    error = kind.__new__(kind)
    HmsRayError.__init__(error, rule, got=got, where=where, fix=fix)
    return error


class ConfigError(HmsRayError):
    """A configuration file or a ``--set`` that breaks a rule."""


class DataError(HmsRayError):
    """A competition folder, file or table that breaks the format."""


class PackError(HmsRayError):
    """A packed array that is missing, damaged or does not fit its rows."""


class ModelError(HmsRayError):
    """A model or its weights that cannot be made."""


class TrainingError(HmsRayError):
    """Training that cannot go on, such as a loss that is not finite."""


class PredictionError(HmsRayError):
    """Predictions with gaps, duplicates or invalid distributions."""


class StudyError(HmsRayError):
    """A study folder that does not fit what is asked of it."""


class ResourceError(HmsRayError):
    """A machine or cluster that cannot hold what is asked of it."""


def one_line(error: BaseException) -> str:
    """An error in one line: an ``HmsRayError`` in full, another by its type and last line."""
    if isinstance(error, HmsRayError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1][:300]}" if lines else type(error).__name__


@dataclass(frozen=True)
class Fault:
    """One fault of a competition folder.

    Attributes:
        kind: short machine-readable name, such as ``missing_file``.
        message: what is wrong and what was expected.
        file: path relative to the folder, if one file is concerned.
        id: the EEG, spectrogram, label or row id concerned, as text.
    """

    kind: str
    message: str
    file: str | None = None
    id: str | None = None

    def __str__(self) -> str:
        place = " ".join(part for part in (self.file, self.id and f"[{self.id}]") if part)
        return f"{place}: {self.message}" if place else self.message


class FaultyDataError(DataError):
    """A folder with faults: the error carries all of them and shows the first ones."""

    SHOWN = 5

    def __init__(self, faults: Sequence[Fault], *, where: object) -> None:
        self.faults = tuple(faults)
        shown = shortened_list(self.faults, self.SHOWN, separator="; ")
        super().__init__(
            f"a competition folder must have no faults, {len(self.faults)} found: {shown}",
            where=where,
            fix="List all of them with: hms-ray check DIR.",
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_faulty, (self.faults, self.where))


def _rebuild_faulty(faults: Sequence[Fault], where: object) -> FaultyDataError:
    return FaultyDataError(faults, where=where)
