"""The lease on a folder: one process at a time holds it, on whichever machine.

Its owner renews it while it lives, so that it needs no locks of the file system. An owner whose
process has ended on this machine is succeeded at once, one whose machine is gone after
``LEASE_S``. An owner that was suspended for longer may run beside its successor for some
seconds: what it then writes must do no harm.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from filelock import LeaseCompromise, SoftFileLease, Timeout

LEASE_FILE: Final = ".lease"
LEASE_S: Final = 60.0
RENEWAL_S: Final = 10.0

_POLL_S: Final = 0.01
_held: Final = set[str | None]()
"""Tokens of the leases that this process holds."""


class FolderLease:
    """The right to write to a folder; see the module.

    Args:
        folder: must exist before the lease is taken.
        on_lost: called once, from a thread, with the reason if the lease is lost.
    """

    def __init__(
        self, folder: Path, on_lost: Callable[[LeaseCompromise], None] = lambda reason: None
    ) -> None:
        self._file = folder / LEASE_FILE
        self._lease = SoftFileLease(
            self._file,
            lease_duration=LEASE_S,
            heartbeat_interval=RENEWAL_S,
            on_compromise=on_lost,
            poll_interval=_POLL_S,
            thread_local=False,
        )

    def try_acquire(self, timeout_s: float) -> bool:
        """Takes the lease; False if it is not free within ``timeout_s``.

        A call that follows another one continues to watch the owner: one that is not seen to
        renew its lease for ``LEASE_S`` is succeeded.

        Raises:
            FileNotFoundError: if the folder is gone.
        """
        # The lease would make it.
        os.stat(self._file.parent)
        if self._is_left_behind():
            self._lease.force_break()
        try:
            self._lease.acquire(timeout=timeout_s)
        except Timeout:
            return False
        _held.add(self._lease.token)
        return True

    def _is_left_behind(self) -> bool:
        """Whether the owner has ended in a way that the lease itself does not see."""
        owner = self._lease.owner
        if owner is None or not owner.hostname.startswith(socket.gethostname()):
            return False
        # This process may have released it while the folder was moved away.
        mine = self._lease.is_lock_held_by_us and owner.token not in _held
        return mine or _is_zombie(owner.pid)

    def release(self) -> None:
        """Gives the lease back, if it is held and not lost."""
        _held.discard(self._lease.token)
        # A read-only or removed folder must not hide the error that ends the run.
        with suppress(OSError):
            self._lease.release()

    def renewal(self) -> tuple[int, int] | None:
        """Changes whenever the owner renews its lease, or another one takes it; None: free."""
        with suppress(FileNotFoundError):
            found = self._file.stat()
            return found.st_ino, found.st_mtime_ns
        return None

    def age_s(self) -> float:
        """Seconds since the last renewal; another machine's clock may differ."""
        renewal = self.renewal()
        return 0.0 if renewal is None else time.time() - renewal[1] / 1e9


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and its parent has not asked how: common in containers."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    # The state follows the name, which may contain anything.
    return content.rpartition(")")[2].split()[:1] == ["Z"]


def is_leased(folder: Path) -> bool:
    """Whether a living process holds the lease of a folder.

    An owner on another machine counts as alive for twice ``LEASE_S`` after its last renewal.
    """
    lease = FolderLease(folder)
    if lease.renewal() is None:
        return False
    with suppress(FileNotFoundError):
        if lease.try_acquire(20 * _POLL_S):
            lease.release()
            return False
    return lease.renewal() is not None and lease.age_s() < 2 * LEASE_S
