"""One exception tree for everything that a user can correct.

An error has four parts, of which the first is required: the rule that was broken, the value
received, its place (a file, a row, an id) and the remedy. They are attributes too, so that
programs can read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hms_ray.text import shortened_list


class HmsRayError(Exception):
    """Base class of all errors that hms_ray raises on purpose.

    Args:
        rule: the rule that was broken, as one sentence without a full stop.
        got: value received; shown with ``repr`` unless it is text.
        where: file, row or id.
        fix: what the user can do, beginning with a verb.
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
        # Ray pickles what a worker raises, and by default keyword-only arguments are lost.
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


class FoldError(DataError):
    """A fold table that does not fit the rows."""


class PackError(HmsRayError):
    """A packed array that is missing, damaged or does not fit its rows."""


class ModelError(HmsRayError):
    """A model that cannot be built, or weights that cannot be read."""


class TrainingError(HmsRayError):
    """Training that cannot continue, for example because the loss is not finite."""


class DeviceMemoryError(TrainingError):
    """A fold does not fit into the memory of its device."""


class DivergedError(TrainingError):
    """Training whose loss, gradients or predictions are no longer finite numbers."""


class PredictionError(HmsRayError):
    """Predictions with gaps, duplicates or invalid distributions."""


class StudyError(HmsRayError):
    """A study that is missing, damaged, locked or does not fit the command."""


class LockedError(StudyError):
    """A study that another command runs, or has taken over."""


class StorageError(HmsRayError):
    """A disk or folder that can hold no results any more; it ends a run, not a trial."""


class ResourceError(HmsRayError):
    """A machine or cluster without the required resources."""


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
        file: path relative to the folder; None if no single file is at fault.
        id: EEG, spectrogram, label or row id, as text.
        fix: what to do; None if the message shows it.
    """

    kind: str
    message: str
    file: str | None = None
    id: str | None = None
    fix: str | None = None

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


class Terminated(KeyboardInterrupt):
    """The command is ended by SIGTERM, which does what Ctrl-C does."""


class StoppedByRequest(KeyboardInterrupt):
    """The command is ended by ``hms-ray stop``, which does what Ctrl-C does."""


def stopped_by(interrupt: KeyboardInterrupt) -> str:
    """What has ended a command, in one or two words."""
    if isinstance(interrupt, Terminated):
        return "SIGTERM"
    return "hms-ray stop" if isinstance(interrupt, StoppedByRequest) else "Ctrl-C"


class FoldMoved(Exception):  # noqa: N818 - no error
    """The training of a fold was ended so that another machine continues it."""


class FoldCancelled(Exception):  # noqa: N818 - no error
    """The training of a fold was ended on purpose; not an error of the user."""
