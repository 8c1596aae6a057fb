"""Drafts in work and drafts that killed processes left."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hms_ray.storage.atomic import whole_folder
from hms_ray.storage.drafts import UNLOCKED_AGE_S, drafts_in, is_in_work, remove_leftovers

WRITE = """
import sys
from pathlib import Path
from hms_ray.storage.atomic import whole_folder
with whole_folder(Path({place!r}), label="data-") as draft:
    (draft / "file").touch()
    print(draft, flush=True)
    sys.stdin.read()
"""


@contextmanager
def writing(place: Path) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """Another process that writes a folder until its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITE.format(place=str(place))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_draft_of_a_killed_process_is_removed_and_one_in_work_is_not(tmp_path: Path) -> None:
    with writing(tmp_path / "data") as (killed, leftover), writing(tmp_path / "data") as (_, live):
        assert is_in_work(leftover)
        remove_leftovers(tmp_path, "data-")
        assert drafts_in(tmp_path, "data-") == sorted([leftover, live])
        killed.kill()
        killed.wait()
        remove_leftovers(tmp_path, "other-")
        assert leftover.is_dir()
        remove_leftovers(tmp_path, "data-")
        assert drafts_in(tmp_path, "data-") == [live]
        assert {path.name for path in tmp_path.iterdir()} == {live.name, f"{live.name}.lock"}


def test_finished_and_failed_drafts_leave_no_lock(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "data") as draft:
        assert is_in_work(draft)
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "other"):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_draft_without_a_lock_is_removed_once_it_is_old(tmp_path: Path) -> None:
    draft = tmp_path / ".draft-data-0a"
    (draft / "train_eegs").mkdir(parents=True)
    now = time.time()
    os.utime(draft, (0, 0))
    os.utime(draft / "train_eegs", (now, now - UNLOCKED_AGE_S + 60))
    remove_leftovers(tmp_path, "data-")
    assert draft.is_dir()
    os.utime(draft / "train_eegs", (now, now - UNLOCKED_AGE_S - 60))
    remove_leftovers(tmp_path, "data-")
    assert not draft.exists()


def test_file_system_without_locks_keeps_young_drafts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", without_locks)
    with whole_folder(tmp_path / "data", label="data-") as draft:
        remove_leftovers(tmp_path, "data-")
        assert draft.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
