"""A second process that reads and writes in a folder beside the calling one."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Protocol

N_CLAIMS: Final = 100
WATCH_S: Final = 5.0
"""Longest time to watch a file for its last content."""
PEER_TIMEOUT_S: Final = 30.0


class Peer(Protocol):
    """The second process."""

    def start(self, name: str, *arguments: Any) -> None:
        """Starts an operation, a key of ``OPERATIONS``, and returns at once."""

    def result(self) -> Any:
        """Waits for the operation that was started, and returns its result."""


def claim(folder: str) -> list[int]:
    """Numbers of the files that this process made."""
    own = []
    for k in range(N_CLAIMS):
        with suppress(FileExistsError):
            os.close(os.open(Path(folder) / str(k), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            own.append(k)
    return own


def _read(place: str) -> bytes | None:
    try:
        return Path(place).read_bytes()
    except FileNotFoundError:
        return None


def _watch(place: str, last: bytes) -> list[bytes | None]:
    """Everything that a file contained until it has its last content."""
    seen: set[bytes | None] = set()
    end = time.monotonic() + WATCH_S
    while last not in seen and time.monotonic() < end:
        seen.add(_read(place))
    return list(seen)


def _lock(place: str) -> bool:
    """Whether a lock that another process holds can be taken."""
    with open(place, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _mtime(place: str) -> float:
    return os.stat(place).st_mtime


OPERATIONS: Final[dict[str, Callable[..., Any]]] = {
    "claim": claim,
    "lock": _lock,
    "mtime": _mtime,
    "names": os.listdir,
    "read": _read,
    "watch": _watch,
}


class _Process:
    """A child process that runs operations."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def start(self, name: str, *arguments: Any) -> None:
        self._connection.send((name, arguments))

    def result(self) -> Any:
        if not self._connection.poll(PEER_TIMEOUT_S):
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        done, value = self._connection.recv()
        if done:
            return value
        raise value


@contextmanager
def second_process() -> Iterator[Peer]:
    """Starts a second process; it is ended with the block."""
    # Not forked: a fork may share what a new process on another machine would not.
    context = multiprocessing.get_context("spawn")
    own, other = context.Pipe()
    process = context.Process(target=_serve, args=(other,), daemon=True)
    process.start()
    try:
        yield _Process(own)
    finally:
        own.close()
        process.terminate()
        process.join()


def _serve(connection: Connection) -> None:
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            name, arguments = connection.recv()
            try:
                connection.send((True, OPERATIONS[name](*arguments)))
            except OSError as error:
                connection.send((False, error))
