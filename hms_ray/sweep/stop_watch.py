"""Looks for requests of ``hms-ray stop`` while a study runs."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hms_ray.storage.run_log import FaultLog
from hms_ray.storage.stop_requests import STOPPED_ANSWER, StopRequests

logger = logging.getLogger(__name__)

POLL_S: Final = 1.0


def end_as_by_ctrl_c() -> None:
    """What Ctrl-C does to this process."""
    os.kill(os.getpid(), signal.SIGINT)


class StopWatch:
    """Follows requests to stop from a thread, while a block runs.

    Args:
        study: folder of the study.
        stop_trial: called with the number of a trial to stop, every second until it has
            ended; returns why it cannot be stopped, or None.
        stop_study: called once to end the whole study.
    """

    def __init__(
        self,
        study: Path,
        stop_trial: Callable[[int], str | None],
        stop_study: Callable[[], None] = end_as_by_ctrl_c,
    ) -> None:
        self._requests = StopRequests(study)
        self._stop_trial, self._stop_study = stop_trial, stop_study
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
        while not self._ended.wait(POLL_S):
            with self._faults("requests to stop could not be read"):
                for trial in self._requests.pending():
                    if trial is None:
                        logger.info("the study is stopped by hms-ray stop")
                        self._stop_study()
                        return
                    refusal = self._stop_trial(trial)
                    if refusal is not None:
                        self._requests.answer(trial, refusal)
