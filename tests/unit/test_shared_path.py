"""What a shared path needs: found where it is, and named where it is missing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hms_ray.cli.main import main
from hms_ray.errors import ConfigError
from hms_ray.storage import second_process, shared_path
from hms_ray.storage.drafts import DRAFT_PREFIX
from hms_ray.storage.shared_path import check_shared_path
from tests.refused import refusal


class Peer:
    """A second process that answers what a test wants, or what this process sees."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers
        self._started: tuple[str, tuple[Any, ...]] = ("", ())

    def start(self, name: str, *arguments: Any) -> None:
        self._started = name, arguments

    def result(self) -> Any:
        name, arguments = self._started
        if name in self._answers:
            return self._answers[name]
        return second_process.OPERATIONS[name](*arguments)


def test_a_local_folder_has_everything_and_stays_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-storage", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(shared_path._CHECKS)
    assert all(line.startswith("ok ") for line in lines[:-1])
    assert "as far as one machine can tell" in lines[-1]
    assert not list(tmp_path.iterdir())


def test_what_a_killed_check_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / f"{DRAFT_PREFIX}{shared_path._LABEL}0"
    left.mkdir()
    Path(f"{left}.lock").touch()
    check_shared_path(tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_needs_are_named_with_their_purpose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(shared_path.fcntl, "flock", refuse)
    assert main(["check-storage", str(tmp_path)]) == 0, "file locks are not required"
    assert "without  file locks" in capsys.readouterr().out
    monkeypatch.setattr(shared_path.os, "fsync", refuse)
    assert main(["check-storage", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "missing  flush" in output
    assert "results survive a power failure: Operation not supported" in output
    assert "flush missing." in output
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_checked_is_refused(tmp_path: Path) -> None:
    with refusal(
        ConfigError, "must be a folder", got=f"{tmp_path}/no", fix="Make it, or mount it."
    ):
        check_shared_path(tmp_path / "no")


def test_a_read_only_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with refusal(
        ConfigError,
        "must be writable",
        got="Read-only file system",
        where=str(tmp_path),
        fix="Mount it for writing",
    ):
        check_shared_path(tmp_path)


@pytest.mark.parametrize(
    ("check", "answers", "fault"),
    [
        (shared_path.file_rename, {"watch": [b"00000000" * 7]}, "missing or in part"),
        (shared_path.file_rename, {"watch": [None]}, "missing or in part"),
        (shared_path.file_rename, {"watch": []}, "did not see the last content"),
        (shared_path.folder_rename, {"names": []}, "was not seen with its file"),
        (shared_path.exclusive_create, {"claim": [1, 2]}, "made the same file, 2 of 100 times"),
        (shared_path.read_after_write, {"read": b"old"}, "read old content"),
        (shared_path.times, {"mtime": 0.0}, "did not see a new time of change"),
        (shared_path.file_lock, {"lock": True}, "got the same lock"),
    ],
)
def test_each_fault_is_found(
    check: Callable[..., str | None],
    answers: dict[str, Any],
    fault: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_path, "READ_TIMEOUT_S", 0.05)
    monkeypatch.setattr(second_process, "WATCH_S", 0.05)
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    assert check(tmp_path / "good", Peer()) is None
    assert fault in (check(tmp_path / "bad", Peer(**answers)) or "")


def test_a_folder_that_replaces_another_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(source: Path, place: Path) -> None:
        for file in place.iterdir():
            file.unlink()
        source.replace(place)

    monkeypatch.setattr(shared_path.os, "rename", replace)
    found = shared_path.folder_rename(tmp_path, Peer())
    assert found == "a folder replaced one that had content"


def test_clocks_that_differ_are_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = shared_path.time.time()
    monkeypatch.setattr(shared_path.time, "time", lambda: now + 100)
    assert "clocks of file server and machine differ by 100 s" in (
        shared_path.times(tmp_path, Peer()) or ""
    )


def test_an_exclusive_create_that_never_succeeds_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise FileExistsError

    monkeypatch.setattr(shared_path.os, "open", refuse)
    found = shared_path.exclusive_create(tmp_path, Peer())
    assert found == "neither process made a file that was not there"
