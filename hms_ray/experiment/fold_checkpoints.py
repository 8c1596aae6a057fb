"""The checkpoints of a fold in training: one writer, who resumes from the latest one.

They hold the state of rank 0 right after an evaluation, which is the state of all ranks then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from hms_ray.errors import FoldMoved, HmsRayError
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.resume_folder import ResumeFolder
from hms_ray.storage.run_log import FaultLog

if TYPE_CHECKING:
    from hms_ray.experiment.fold_task import FoldTask
    from hms_ray.train.fold_state import FoldState
    from hms_ray.train.process import Process

logger = logging.getLogger(__name__)

POLL_S: Final = 1.0
"""Seconds between two looks at a fold that another process trains."""


class FoldCheckpoints:
    """Writes and reads the checkpoints of one fold, on rank 0.

    Args:
        task: the fold.
    """

    def __init__(self, task: FoldTask) -> None:
        self._task = task
        self._folder = ResumeFolder(task.results, task.key)
        self._faults = FaultLog(logger, task.results)
        self._waiting = False
        self._saved = time.monotonic()

    def take(self, process: Process) -> Literal["train", "stored", "wait"]:
        """What this process does with the fold; ``wait``: another one trains it.

        Raises:
            FoldCancelled: if ``process.should_stop`` returns true.
        """
        from hms_ray.train.cancel import check_cancelled

        check_cancelled(process)
        store, key = FoldStore(self._task.results), self._task.key
        if self._folder.take():
            if not store.has(key):
                self._saved = time.monotonic()
                return "train"
            self._folder.release(remove=True)
        if store.has(key):
            return "stored"
        if not self._waiting:
            self._waiting = True
            writer = self._folder.writer()
            logger.info("another process%s trains this fold; waiting for its result", writer)
            process.report({"event": "fold_waits", "writer": writer})
        time.sleep(POLL_S)
        return "wait"

    def latest(self) -> tuple[FoldState, dict[str, Any]] | None:
        """The state of the latest checkpoint and its notes; None without a usable one.

        One that is damaged is removed, with a warning.
        """
        from hms_ray.train.fold_state import state_from

        try:
            content = self._folder.read()
            return None if content is None else state_from(content)
        except HmsRayError as error:
            logger.warning("a checkpoint cannot be used and is removed: %s", error)
            self._folder.remove_checkpoint()
            return None

    def save(
        self,
        notes: Callable[[], dict[str, Any]],
        leaves: Callable[[], bool],
        make_state: Callable[[], FoldState],
    ) -> None:
        """Writes a checkpoint if the last one is old enough (``checkpoint_every_s``).

        If a machine of the fold is about to leave, it writes one in any case, and the fold ends.

        A fault is logged, and training continues.

        Raises:
            StorageError: if nothing can be written any more, such as on a full disk.
            FoldMoved: after a checkpoint, if ``leaves`` returns true.
        """
        from hms_ray.train.fold_state import state_bytes

        every_s = self._task.checkpoint_every_s
        if every_s is None:
            return
        moves = leaves()
        if not moves and time.monotonic() - self._saved < every_s:
            return
        written = False
        with self._faults("no checkpoint was written"):
            self._folder.write(state_bytes(make_state(), notes()))
            written = True
        self._saved = time.monotonic()
        if moves and written:
            raise FoldMoved("its machine is about to leave; another one continues")

    def end(self) -> None:
        """Ends the writing. Once the result is stored, the checkpoint is removed."""
        stored = FoldStore(self._task.results).has(self._task.key)
        self._folder.release(remove=stored)


@contextmanager
def fold_checkpoints(task: FoldTask, process: Process) -> Iterator[FoldCheckpoints | None]:
    """The checkpoints of a fold, of which this group is the only writer while a block runs.

    While another process trains the fold, this one waits for its result, and takes over if
    that process ends without one. Called by all ranks together; no rank waits longer than
    ``POLL_S`` for another.

    Yields:
        None if the result is in the store.

    Raises:
        FoldCancelled: if ``process.should_stop`` returns true on rank 0 while it waits.
    """
    checkpoints = FoldCheckpoints(task)
    try:
        while (answer := process.call_on_rank0(partial(checkpoints.take, process))) == "wait":
            pass
        yield checkpoints if answer == "train" else None
    finally:
        if process.rank == 0:
            checkpoints.end()
