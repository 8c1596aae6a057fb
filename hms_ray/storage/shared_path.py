"""Whether a shared folder has what a cluster needs: tried out by two processes.

Network file systems differ in what they promise. Each need is tried with a second process, which
reads and writes at the same time as this one.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hms_ray.errors import ConfigError
from hms_ray.storage.drafts import draft_beside, held, remove_leftovers
from hms_ray.storage.second_process import N_CLAIMS, Peer, claim, second_process

N_RENAMES: Final = 50
N_READS: Final = 10
CLOCK_S: Final = 10.0
"""Largest difference between the clocks of the file server and of a machine."""
READ_TIMEOUT_S: Final = 5.0
"""A file that was written and closed must be readable elsewhere within this time."""

_LABEL: Final = "storage-check-"


@dataclass(frozen=True)
class Need:
    """What a shared path needs.

    Attributes:
        name: short.
        purpose: what is lost without it.
        required: whether a cluster can do without it.
        fault: what was found instead; None if the path has it.
    """

    name: str
    purpose: str
    required: bool
    fault: str | None


def check_shared_path(path: Path) -> list[Need]:
    """Tries out everything that a shared folder needs; removes all that it writes.

    Args:
        path: folder that exists.

    Raises:
        ConfigError: if it is not a folder, or nothing can be written there.
    """
    if not path.is_dir():
        raise ConfigError(
            "the path to check must be a folder", got=str(path), fix="Make it, or mount it."
        )
    folder = draft_beside(path / "any", _LABEL)
    try:
        remove_leftovers(path, _LABEL)
        folder.mkdir()
    except OSError as error:
        raise ConfigError(
            "the folder to check must be writable",
            got=error.strerror,
            where=path,
            fix="Mount it for writing, or give this user the right to write.",
        ) from None
    with held(folder):
        try:
            with second_process() as peer:
                return [
                    Need(name, purpose, required, _fault(check, folder, peer))
                    for name, purpose, required, check in _CHECKS
                ]
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _fault(check: Callable[[Path, Peer], str | None], folder: Path, peer: Peer) -> str | None:
    """What is missing; an error of the file system is a fault too."""
    try:
        return check(folder, peer)
    except OSError as error:
        return error.strerror or type(error).__name__


def file_rename(folder: Path, peer: Peer) -> str | None:
    """A file is replaced while the other process reads it."""
    place, contents = folder / "replaced", [_content(k) for k in range(N_RENAMES)]
    place.write_bytes(contents[0])
    peer.start("watch", str(place), contents[-1])
    for content in contents[1:]:
        draft = folder / "draft"
        draft.write_bytes(content)
        os.replace(draft, place)
    seen = peer.result()
    torn = set(seen) - set(contents)
    if torn:
        return "the other process found the file missing or in part"
    return None if contents[-1] in seen else "the other process did not see the last content"


def folder_rename(folder: Path, peer: Peer) -> str | None:
    """A folder appears as a whole, and never replaces one that has content."""
    first, second, place = (folder / name for name in ("first", "second", "place"))
    for draft in (first, second):
        draft.mkdir()
        (draft / draft.name).write_bytes(_content(1))
    place.mkdir()
    os.rename(first, place)
    peer.start("names", str(place))
    if peer.result() != ["first"]:
        return "a folder that replaced an empty one was not seen with its file"
    try:
        os.rename(second, place)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return None
        return f"a folder with content was kept, but with the error {error.strerror}"
    return "a folder replaced one that had content"


def exclusive_create(folder: Path, peer: Peer) -> str | None:
    """Two processes make the same files, each of which only one may make."""
    claims = folder / "claims"
    claims.mkdir()
    peer.start("claim", str(claims))
    own = claim(str(claims))
    other = peer.result()
    if both := set(own) & set(other):
        return f"both processes made the same file, {len(both)} of {N_CLAIMS} times"
    if len(own) + len(other) < N_CLAIMS:
        return "neither process made a file that was not there"
    return None


def read_after_write(folder: Path, peer: Peer) -> str | None:
    """A file is read elsewhere right after it was written, also one that was not there."""
    place = folder / "written"
    for k in range(N_READS):
        peer.start("read", str(place))
        peer.result()
        place.write_bytes(_content(k))
        end = time.monotonic() + READ_TIMEOUT_S
        while True:
            peer.start("read", str(place))
            if peer.result() == _content(k):
                break
            if time.monotonic() > end:
                return f"the other process read old content {READ_TIMEOUT_S:g} s after a write"
            time.sleep(0.05)
        if k % 2:
            place.unlink()
    return None


def flush(folder: Path, _: Peer) -> str | None:
    """A file and the entries of its folder are flushed to the disk."""
    with (folder / "flushed").open("wb") as file:
        file.write(_content(1))
        file.flush()
        os.fsync(file.fileno())
    return None


def times(folder: Path, peer: Peer) -> str | None:
    """Times of change move on, are the same for both processes and fit the clock."""
    place = folder / "changed"
    place.write_bytes(b"1")
    first = place.stat().st_mtime
    if abs(first - time.time()) > CLOCK_S:
        return f"the clocks of file server and machine differ by {abs(first - time.time()):.0f} s"
    os.utime(place, (first + 5, first + 5))
    peer.start("mtime", str(place))
    if abs(peer.result() - (first + 5)) > 1:
        return "the other process did not see a new time of change"
    return None


def memory_map(folder: Path, _: Peer) -> str | None:
    """A file is mapped into memory."""
    place = folder / "mapped"
    place.write_bytes(_content(1))
    with (
        place.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        return None if mapped[:] == _content(1) else "other content than was written"


def file_lock(folder: Path, peer: Peer) -> str | None:
    """A lock of this process keeps the other one out."""
    place = folder / "locked"
    with place.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        peer.start("lock", str(place))
        return "the other process got the same lock" if peer.result() else None


_CHECKS: Final[tuple[tuple[str, str, bool, Callable[[Path, Peer], str | None]], ...]] = (
    ("rename a file", "results and records are written whole", True, file_rename),
    ("rename a folder", "the fold store keeps the first of two equal results", True, folder_rename),
    ("exclusive create", "one command at a time runs a study", True, exclusive_create),
    ("read after write", "machines see each other's results", True, read_after_write),
    ("flush", "results survive a power failure", True, flush),
    ("times of change", "a study is taken over from a lost machine", True, times),
    ("memory map", "workers read packs", True, memory_map),
    ("file locks", "leftovers of killed commands are removed at once", False, file_lock),
)


def _content(k: int) -> bytes:
    """Content of several blocks, so that a partly written file differs from a whole one."""
    return f"{k:08d}".encode() * 2048
