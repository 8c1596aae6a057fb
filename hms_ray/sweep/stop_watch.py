"""Looks for requests of ``hms-ray stop`` while a study runs, and whether its folder stays."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hms_ray.distributed.process_state import stop_by_request
from hms_ray.errors import StorageError
from hms_ray.storage.faults import removed
from hms_ray.storage.folder_names import STUDY_FILE
from hms_ray.storage.run_log import FaultLog
from hms_ray.storage.stop_requests import STOPPED_ANSWER, StopRequests

logger = logging.getLogger(__name__)

POLL_S: Final = 1.0
N_MISSING: Final = 2
"""So often in a row a study's folder is looked for in vain before it is taken for removed."""


class StopWatch:
    """Follows requests to stop, and the study's folder, from a thread while a block runs.

    Args:
        study: folder of the study.
        stop_trial: called with the number of a trial to stop, every second until it has
            ended; returns why it cannot be stopped, or None.
        stop_study: called once to end the whole study.
        on_fault: called once if the study's folder is gone.
    """

    def __init__(
        self,
        study: Path,
        stop_trial: Callable[[int], str | None],
        stop_study: Callable[[], None] = stop_by_request,
        on_fault: Callable[[StorageError], None] = lambda fault: None,
    ) -> None:
        self._study, self._requests = study, StopRequests(study)
        self._stop_trial, self._stop_study = stop_trial, stop_study
        self._on_fault = on_fault
        self._ended = threading.Event()
        self._faults = FaultLog(logger)
        self._thread = threading.Thread(target=self._follow, name="stop", daemon=True)

    def __enter__(self) -> StopWatch:
        self._requests.clear()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._requests.clear()

    def trial_ended(self, number: int, *, stopped: bool) -> None:
        """Answers the request for a trial that has ended, if there is one."""
        if number in self._requests.pending():
            self._requests.answer(number, STOPPED_ANSWER if stopped else "has ended by itself")

    def _follow(self) -> None:
        n_missing = 0
        while not self._ended.wait(POLL_S):
            # Twice in a row: a shared file system may hide a file for a moment.
            n_missing = 0 if (self._study / STUDY_FILE).is_file() else n_missing + 1
            if n_missing == N_MISSING:
                self._on_fault(removed(self._study))
            with self._faults("requests to stop could not be read"):
                for trial in self._requests.pending():
                    if trial is None:
                        logger.info("the study is stopped by hms-ray stop")
                        self._stop_study()
                        return
                    refusal = self._stop_trial(trial)
                    if refusal is not None:
                        self._requests.answer(trial, refusal)
