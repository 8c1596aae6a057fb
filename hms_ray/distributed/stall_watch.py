"""Ends the process of a rank that hangs, after its Python stacks were written to its log.

The queue decides, since it knows all ranks: one may load while the others wait for it, and the
one that hangs is behind the others. A process in which no thread can run, because one keeps the
interpreter's lock, is ended by a timer of ``faulthandler``, which needs no lock.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any, Final

import ray

from hms_ray.train.pulse import Pulse, RankPulse

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 5.0
"""Longest time between two reports of a rank."""
ENDED_BY_WATCH: Final = 75


class StallWatch:
    """Watches one rank from a thread while a block trains a fold.

    Args:
        queue: handle of the queue's actor.
        seat: number of the group's seat.
        rank: this one.
        place: of the job in the sequence of the seat.
        pulse: of its training.
        timeout_s: see ``ResourcesConfig.stall_timeout_s``.
        log: log file of this process.
    """

    def __init__(
        self,
        queue: Any,
        seat: int,
        rank: int,
        place: int,
        pulse: Pulse,
        timeout_s: float,
        log: Path,
    ) -> None:
        self._queue, self._seat, self._rank, self._place = queue, seat, rank, place
        self._pulse, self._timeout_s, self._log = pulse, timeout_s, log
        self._interval_s = min(INTERVAL_S, timeout_s / 10)
        self._stopping, self._lock = threading.Event(), threading.Lock()
        self._stream: IO[str] = sys.stderr

    def __enter__(self) -> StallWatch:
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._log.open("a", encoding="utf-8")
        except OSError as error:
            logger.warning("stacks of a stalled fold will not be in %s: %s", self._log, error)
        self._pulse.on_begin = self._set_timer
        threading.Thread(target=self._follow, name="stall watch", daemon=True).start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._stopping.set()
        with self._lock:
            faulthandler.cancel_dump_traceback_later()
            if self._stream is not sys.stderr:
                self._stream.close()

    def _set_timer(self) -> None:
        """Ends the process unless this is called again in time."""
        with self._lock:
            if not self._stopping.is_set():
                # After the queue has noticed, so that it knows the reason.
                seconds = self._timeout_s + 2 * self._interval_s
                faulthandler.dump_traceback_later(seconds, exit=True, file=self._stream)

    def _follow(self) -> None:
        while not self._stopping.wait(self._interval_s):
            if not self._pulse.begun:
                continue
            self._set_timer()
            age_s = time.monotonic() - self._pulse.at
            if (text := self._answer(age_s)) and not self._stopping.is_set():
                self._end(text)

    def _answer(self, age_s: float) -> str | None:
        """Why this process has to end, if it has to."""
        pulse = RankPulse(self._place, self._pulse.position, age_s, str(self._log))
        try:
            answer: str | None = ray.get(self._queue.pulse.remote(self._seat, self._rank, pulse))
        except Exception:
            # Ray restarts a lost queue.
            logger.debug("the queue did not take the pulse of a rank", exc_info=True)
            answer = None
        if answer is None and age_s >= self._timeout_s:
            return f"no step for {age_s:.0f} s"
        return answer

    def _end(self, text: str) -> None:
        logger.error("%s; the worker group is restarted. Stacks of all threads:", text)
        with self._lock:
            faulthandler.cancel_dump_traceback_later()
            faulthandler.dump_traceback(self._stream)
        # Ray ends the other ranks as soon as one has ended; they need the time to get here.
        time.sleep(2 * self._interval_s)
        os._exit(ENDED_BY_WATCH)
