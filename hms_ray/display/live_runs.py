"""TensorBoard runs that grow while they are trained."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

from hms_ray.display.notice import Event
from hms_ray.display.tensorboard import RunEnd, RunLog
from hms_ray.errors import HmsRayError, StorageError
from hms_ray.storage.run_log import FaultLog

logger = logging.getLogger(__name__)

WRITE_EVERY_S: Final = 5.0
LATE_S: Final = 2.0
SHUTDOWN_TIMEOUT_S: Final = 60.0
"""For what is left at the end, on a slow disk; a study completes the rest when it is resumed."""


MakeEnd = Callable[[RunLog], RunEnd]


class LiveRuns:
    """Writes the event files of runs from a thread, while a block runs.

    Nothing that it meets ends or delays the training, a full disk included.

    Args:
        open_run: opens the run of a name.
        name_of: the run of an event, see ``TrainingProgress``; None: it is of no run.
        write_every_s: seconds between writing.
    """

    def __init__(
        self,
        open_run: Callable[[str], RunLog],
        name_of: Callable[[Event], str | None],
        write_every_s: float = WRITE_EVERY_S,
    ) -> None:
        self._open_run, self._name_of, self._write_every_s = open_run, name_of, write_every_s
        self._runs: dict[str, RunLog] = {}
        self._unseen: dict[str, dict[int, str]] = {}
        self._ended: set[str] = set()
        self._jobs: deque[Callable[[], None]] = deque()
        self._ends: deque[tuple[float, Callable[[], None]]] = deque()
        self._faults = FaultLog(logger)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._write, name="tensorboard", daemon=True)

    def __enter__(self) -> LiveRuns:
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._stopping.set()
        self._thread.join(timeout=SHUTDOWN_TIMEOUT_S)

    def handle(self, event: Event) -> None:
        """Takes an event of the training; returns at once."""
        now = time.time()
        self._jobs.append(partial(self._take, event, now))

    def begin(self, name: str, stored: Mapping[int, str]) -> None:
        """Starts a run, or continues one.

        Args:
            name: of the run.
            stored: fold -> cache key of the folds that are stored already.
        """
        self._jobs.append(partial(self._begin, name, stored))

    def _begin(self, name: str, stored: Mapping[int, str]) -> None:
        self._run(name).begin()
        for fold, key in stored.items():
            self._complete(name, fold, key)

    def do(self, job: Callable[[], None]) -> None:
        """Calls a function in the thread, after the events that came before."""
        self._jobs.append(job)

    def end(self, name: str, keys: Mapping[int, str], make_end: MakeEnd) -> None:
        """Completes a run from its stored folds and ends it; later events are ignored.

        Args:
            name: of the run.
            keys: fold -> cache key of its stored folds; those that are gone are skipped.
            make_end: called with the run, in the thread.
        """
        # Its last events may come after the news of its end.
        job = partial(self._end_last, name, keys, make_end)
        self._ends.append((time.monotonic() + LATE_S, job))

    def _end_last(self, name: str, keys: Mapping[int, str], make_end: MakeEnd) -> None:
        self._ended.add(name)
        self.complete(name, keys, make_end)

    def complete(self, name: str, keys: Mapping[int, str], make_end: MakeEnd) -> None:
        """Ends a run at once, from a job; for arguments see ``end``."""
        self._begin(name, keys)
        run = self._run(name)
        run.end(make_end(run))
        run.file.flush()
        self._runs.pop(name, None)
        self._unseen.pop(name, None)

    def _run(self, name: str) -> RunLog:
        if name not in self._runs:
            self._runs[name] = self._open_run(name)
        return self._runs[name]

    def _write(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stopping.wait(self._write_every_s)
            for _ in range(len(self._jobs)):
                self._guarded(self._jobs.popleft())
            while self._ends and (stopping or self._ends[0][0] <= time.monotonic()):
                self._guarded(self._ends.popleft()[1])
            for name, run in list(self._runs.items()):
                self._guarded(partial(self._bring_up_to_date, name, run))

    def _guarded(self, job: Callable[[], None]) -> None:
        # The folder of a run may be removed while it is trained.
        with suppress(StorageError), self._faults("TensorBoard's files were not written"):
            job()

    def _bring_up_to_date(self, name: str, run: RunLog) -> None:
        for fold, key in list(self._unseen.get(name, {}).items()):
            self._complete(name, fold, key)
        run.file.flush()

    def _take(self, event: Event, now: float) -> None:
        name, kind = self._name_of(event), event["event"]
        if name is None or name in self._ended:
            return
        if kind == "trial_started":
            self._begin(name, {})
        elif kind == "evaluation":
            self._run(name).evaluated(event["fold"], event["key"], event, now)
        elif kind in ("stages_reused", "fold_resumed"):
            history: list[Any] = event["history"]
            started_s = now - float(history[-1]["seconds"])
            self._run(name).add(event["fold"], event["key"], history, started_s)
        elif kind == "folds_reused":
            for fold, key in event["keys"].items():
                self._complete(name, fold, key)
        elif kind == "fold_ended" and "key" in event:
            # What was lost of its events.
            self._complete(name, event["fold"], event["key"])

    def _complete(self, name: str, fold: int, key: str) -> None:
        unseen = self._unseen.setdefault(name, {})
        unseen[fold] = key
        # Its files may become visible on this machine later.
        with suppress(HmsRayError):
            self._run(name).complete(fold, key)
            del unseen[fold]
