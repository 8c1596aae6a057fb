"""How the last run of a study ended, and whether another run could end otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from hms_ray.errors import (
    ConfigError,
    DataError,
    HmsRayError,
    LockedError,
    StudyError,
    one_line,
    stopped_by,
)
from hms_ray.storage.fold_store import StoredFoldError
from hms_ray.storage.structured_files import json_text, read_json, write_text

OUTCOME_FILE: Final = "outcome.json"
FINISHED: Final = "finished"
EXIT_ZERO: Final = "--exit-zero-when-final"

_FINAL: Final = (ConfigError, DataError, StudyError)
_PASSING: Final = (LockedError, StoredFoldError)


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        text: one line.
        final: whether the same command would end in the same way, so that a scheduler need not
            start it again.
        ended: when, ISO 8601 in UTC.
    """

    text: str
    final: bool
    ended: str


def is_final(error: BaseException) -> bool:
    """Whether the same command would end with the same error.

    Configuration, data and a study that does not fit stay as they are; machines, disks,
    downloads and locks change.
    """
    return isinstance(error, _FINAL) and not isinstance(error, _PASSING)


def record_outcome(study: Path, text: str, *, final: bool) -> None:
    """Writes how a run ended into the study's folder, if that exists and can be written."""
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    if study.is_dir():
        with suppress(OSError):
            content = asdict(RunOutcome(text, final, ended))
            write_text(study / OUTCOME_FILE, json_text(content))


def read_outcome(study: Path) -> RunOutcome | None:
    """How the last run of a study ended; None while it runs, or if it was killed."""
    with suppress(HmsRayError, TypeError):
        return RunOutcome(**read_json(study / OUTCOME_FILE, dict))
    return None


@contextmanager
def errors_recorded(study: Path) -> Iterator[None]:
    """Records the error or signal that ends a run; what an earlier run recorded is removed."""
    with suppress(OSError):
        (study / OUTCOME_FILE).unlink(missing_ok=True)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        record_outcome(study, f"stopped by {stopped_by(interrupt)}", final=False)
        raise
    except LockedError:
        # The study is another command's now.
        raise
    except Exception as error:
        record_outcome(study, one_line(error), final=is_final(error))
        raise
