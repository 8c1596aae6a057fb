"""Locks between two processes."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hms_ray.errors import StudyError
from hms_ray.storage.locks import LOCK_FILE, OWNER_FILE, StudyLock, running_since, short_lock

HOLD = """
import sys
from pathlib import Path
from hms_ray.storage.locks import StudyLock, short_lock
with {lock}:
    print("held", flush=True)
    sys.stdin.read()
"""

Hold = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Starts a process that holds a lock until its standard input ends."""
    stack = ExitStack()

    def start(lock: str) -> subprocess.Popen[str]:
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", HOLD.format(lock=lock)],
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
    other.wait()
    assert json.loads((tmp_path / OWNER_FILE).read_text())["pid"] == other.pid
    with StudyLock(tmp_path):
        assert json.loads((tmp_path / OWNER_FILE).read_text())["pid"] != other.pid
    assert [file.name for file in tmp_path.iterdir()] == [LOCK_FILE]


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


def test_study_needs_a_file_system_with_locks_and_a_short_lock_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", without_locks)
    with pytest.raises(StudyError, match="must support file locks") as caught:
        StudyLock(tmp_path).acquire()
    assert caught.value.got == "No locks available"
    assert caught.value.where == tmp_path
    assert not (tmp_path / OWNER_FILE).exists()
    with short_lock(tmp_path / "draft.lock"):
        pass
