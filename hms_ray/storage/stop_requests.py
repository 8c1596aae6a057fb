"""Requests to stop a running study or one of its trials, as files in the study's folder.

``hms-ray stop`` writes a request from any machine that sees the folder; the study process looks
for requests every second and writes an answer for each trial. A whole study answers by ending.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from hms_ray.storage.atomic import whole_file

STOP_FOLDER: Final = ".stop"
STOPPED_ANSWER: Final = "stopped"
_WHOLE: Final = "study"
_REQUEST, _ANSWER = ".request", ".answer"


class StopRequests:
    """The requests of one study.

    Args:
        study: folder of the study.
    """

    def __init__(self, study: Path) -> None:
        self._folder = study / STOP_FOLDER

    def clear(self) -> None:
        """Removes requests and answers of an earlier run."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, trial: int | None) -> None:
        """Requests to stop a trial; None: the whole study. A pending request stays."""
        file = self._file(trial, _REQUEST)
        if not file.exists():
            with whole_file(file, fsync=False) as draft:
                draft.touch()

    def pending(self) -> list[int | None]:
        """Trials to stop, by number; None: the whole study."""
        names = sorted(file.stem for file in self._folder.glob(f"*{_REQUEST}"))
        trials: list[int | None] = [int(name) for name in names if name.isdigit()]
        return [None] if _WHOLE in names else trials

    def answer(self, trial: int, text: str) -> None:
        """Answers the request for a trial: ``STOPPED_ANSWER``, or why it was not stopped."""
        with whole_file(self._file(trial, _ANSWER), fsync=False) as draft:
            draft.write_text(text, encoding="utf-8")
        self._file(trial, _REQUEST).unlink(missing_ok=True)

    def take_answer(self, trial: int) -> str | None:
        """The answer for a trial, which is then removed; None if there is none yet."""
        file = self._file(trial, _ANSWER)
        with suppress(FileNotFoundError):
            text = file.read_text(encoding="utf-8")
            file.unlink(missing_ok=True)
            return text
        return None

    def withdraw(self, trial: int | None) -> None:
        """Removes a request that nobody waits for any more."""
        self._file(trial, _REQUEST).unlink(missing_ok=True)

    def _file(self, trial: int | None, suffix: str) -> Path:
        return self._folder / f"{_WHOLE if trial is None else f'{trial:04d}'}{suffix}"
