"""Locks between two processes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hms_ray.errors import HmsRayError, LockedError, StorageError, StudyError
from hms_ray.storage import lease, locks
from hms_ray.storage.locks import OWNER_FILE, StudyLock, running_since, short_lock
from tests.refused import refusal

HOLD = """
import socket, sys
if {host!r}:
    socket.gethostname = lambda: {host!r}
from pathlib import Path
from hms_ray.storage import lease
from hms_ray.storage.locks import StudyLock, short_lock
lease.LEASE_S, lease.RENEWAL_S = {lease_s}
with {lock}:
    print("held", flush=True)
    sys.stdin.read()
"""
LEASES = lease.LEASE_S, lease.RENEWAL_S
LEASE_S = 1.5, 0.1

Hold = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Starts a process that holds a lock until its standard input ends."""
    stack = ExitStack()

    def start(lock: str, host: str = "") -> subprocess.Popen[str]:
        program = HOLD.format(lock=lock, host=host, lease_s=LEASE_S if host else LEASES)
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    with stack:
        yield start


def end(process: subprocess.Popen[str], *, wait: bool = True) -> None:
    assert process.stdin is not None
    process.stdin.close()
    if wait:
        assert process.wait(10) == 0


def test_locked_study_names_its_owner_until_released(tmp_path: Path, hold: Hold) -> None:
    other = hold(f"StudyLock(Path({str(tmp_path)!r}))")
    with pytest.raises(StudyError, match="locked by another process") as caught:
        StudyLock(tmp_path).acquire()
    owner = json.loads((tmp_path / OWNER_FILE).read_text())
    assert (owner["host"], owner["pid"]) == (socket.gethostname(), other.pid)
    assert f"(host {owner['host']}, pid {other.pid}, since {owner['since']})" in caught.value.rule
    assert caught.value.where == tmp_path
    assert caught.value.fix is not None
    end(other)
    assert not (tmp_path / OWNER_FILE).exists()
    with StudyLock(tmp_path):
        assert (tmp_path / OWNER_FILE).is_file()


def test_lock_of_killed_process_does_not_block(tmp_path: Path, hold: Hold) -> None:
    other = hold(f"StudyLock(Path({str(tmp_path)!r}))")
    other.kill()
    # Its parent need not have asked how it ended, as the first process of a container.
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert json.loads((tmp_path / OWNER_FILE).read_text())["pid"] == other.pid
    with StudyLock(tmp_path):
        assert json.loads((tmp_path / OWNER_FILE).read_text())["pid"] != other.pid
    assert list(tmp_path.iterdir()) == []


def test_missing_or_damaged_owner_record_is_no_reason_to_fail(tmp_path: Path, hold: Hold) -> None:
    hold(f"StudyLock(Path({str(tmp_path)!r}), 'ladder')")
    for content in ("{", "{}"):
        (tmp_path / OWNER_FILE).write_text(content)
        with pytest.raises(StudyError) as caught:
            StudyLock(tmp_path, "ladder").acquire()
        assert caught.value.rule == "ladder is locked by another process"


def test_a_lock_whose_owner_cannot_be_recorded_is_free(tmp_path: Path) -> None:
    (tmp_path / OWNER_FILE).mkdir()
    lock = StudyLock(tmp_path)
    with pytest.raises(IsADirectoryError):
        lock.acquire()
    assert running_since(tmp_path) is None


def test_short_lock_waits_for_the_other_process(tmp_path: Path, hold: Hold) -> None:
    file = tmp_path / "lock"
    other = hold(f"short_lock(Path({str(file)!r}))")
    end(other, wait=False)
    with short_lock(file):
        # The other process has left the section, so it ends.
        assert other.wait(10) == 0


def test_short_lock_needs_its_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), short_lock(tmp_path / "gone" / "lock"):
        pass


def without_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_locks_need_no_locks_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hold: Hold
) -> None:
    monkeypatch.setattr("fcntl.flock", without_locks)
    with StudyLock(tmp_path), pytest.raises(LockedError):
        StudyLock(tmp_path).acquire()
    hold(f"StudyLock(Path({str(tmp_path)!r}))")
    with pytest.raises(LockedError):
        StudyLock(tmp_path).acquire()
    with short_lock(tmp_path / "draft.lock"):
        pass


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in zip(("LEASE_S", "RENEWAL_S"), LEASE_S, strict=True):
        monkeypatch.setattr(lease, name, seconds)
    monkeypatch.setattr(locks, "WATCH_S", 0.05)


remote = pytest.mark.usefixtures("short_lease")


@remote
def test_an_owner_on_another_machine_is_watched_and_refused_while_it_lives(
    tmp_path: Path, hold: Hold
) -> None:
    other = hold(f"StudyLock(Path({str(tmp_path)!r}))", "elsewhere")
    with refusal(LockedError, f"(host elsewhere, pid {other.pid}, since", where=str(tmp_path)):
        StudyLock(tmp_path).acquire()
    said: list[str] = []
    with refusal(LockedError, f"(host elsewhere, pid {other.pid}, since", where=str(tmp_path)):
        StudyLock(tmp_path, announce=said.append).acquire()
    (line,) = said
    assert line.startswith("the study is held by a process on another machine (host elsewhere")
    assert running_since(tmp_path) is not None
    end(other)
    assert running_since(tmp_path) is None


@remote
def test_an_owner_whose_machine_is_gone_is_succeeded(tmp_path: Path, hold: Hold) -> None:
    other = hold(f"StudyLock(Path({str(tmp_path)!r}))", "elsewhere")
    other.kill()
    other.wait()
    said: list[str] = []
    began = time.monotonic()
    with StudyLock(tmp_path, announce=said.append):
        assert time.monotonic() - began >= LEASE_S[0]
        assert said[1].startswith("the study is taken over (host elsewhere")
        assert json.loads((tmp_path / OWNER_FILE).read_text())["host"] == socket.gethostname()
    assert list(tmp_path.iterdir()) == []


@remote
def test_an_owner_that_was_suspended_for_too_long_learns_that_it_lost_the_study(
    tmp_path: Path, hold: Hold
) -> None:
    other = hold(f"StudyLock(Path({str(tmp_path)!r}), on_lost=print)", "elsewhere")
    other.send_signal(signal.SIGSTOP)
    with StudyLock(tmp_path, announce=lambda text: None):
        other.send_signal(signal.SIGCONT)
        assert other.stdin is not None
        assert other.stdout is not None
        time.sleep(1)
        other.stdin.close()
        told = other.stdout.read()
        assert other.wait(10) == 0
        assert "must be run by one command at a time, got another one, which has taken" in told
        assert f"pid {os.getpid()}, since" in told
        # What it does at its end leaves the lock of its successor.
        assert running_since(tmp_path) is not None
        assert json.loads((tmp_path / OWNER_FILE).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_away_when_it_was_released_is_free_afterwards(tmp_path: Path) -> None:
    folder, away = tmp_path / "study", tmp_path / "away"
    folder.mkdir()
    with StudyLock(folder):
        folder.rename(away)
    away.rename(folder)
    with StudyLock(folder), pytest.raises(LockedError):
        StudyLock(folder).acquire()
    assert running_since(folder) is None


@remote
def test_a_removed_folder_is_a_loss_of_its_lock(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    lost: list[HmsRayError] = []
    with StudyLock(folder, on_lost=lost.append) as lock:
        shutil.rmtree(folder)
        until = time.monotonic() + 5
        while not lost and time.monotonic() < until:
            time.sleep(0.05)
        with refusal(StorageError, "must stay", where=str(folder)):
            lock.check()
    assert not folder.exists()
