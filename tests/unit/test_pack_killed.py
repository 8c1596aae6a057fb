"""Packers that are killed, run concurrently, or lose a worker process."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hms_ray.errors import DataError, PackError
from hms_ray.pack import draft, parallel, plan
from hms_ray.pack.build import build_pack
from hms_ray.pack.inputs import input_files
from hms_ray.pack.make import MadeShard, make_shard
from hms_ray.pack.plan import Shard
from hms_ray.pack.sources import KAGGLE, PackSource
from hms_ray.pack.verify import verify_pack
from tests.competition_folder import write_competition_folder
from tests.killed_packer import (
    BETWEEN_SHARDS,
    ROOT,
    WITHIN_A_SHARD,
    content,
    kill_packer,
    start_packer,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six spectrograms; only read."""
    return write_competition_folder(
        tmp_path_factory.mktemp("data") / "data", 6, eegs_per_patient=1, eegs=False
    )


@pytest.fixture(autouse=True)
def one_recording_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SHARD_ITEMS", 1)


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    before, plan.SHARD_ITEMS = plan.SHARD_ITEMS, 1
    try:
        return content(build_pack(data, tmp_path_factory.mktemp("packs"), workers=1))
    finally:
        plan.SHARD_ITEMS = before


def counting(counted: list[str]) -> PackSource:
    """The competition's spectrograms; names of files that are read are appended."""

    def read(path: Path) -> np.ndarray:
        counted.append(path.name)
        return KAGGLE.read(path)

    return replace(KAGGLE, read=read)


@pytest.mark.parametrize("moment", [BETWEEN_SHARDS, WITHIN_A_SHARD], ids=["between", "within"])
def test_killed_packer_resumes_with_identical_bytes(
    data: Path, undisturbed: dict[str, bytes], tmp_path: Path, moment: str
) -> None:
    kill_packer(data, tmp_path, moment)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".kaggle-")
    read: list[str] = []
    seen: list[tuple[int, int]] = []
    pack = build_pack(
        data, tmp_path, counting(read), workers=1, progress=lambda *done: seen.append(done)
    )
    assert seen[0] == (2, 6)
    assert len(read) == 4
    assert content(pack) == undisturbed
    assert list(tmp_path.iterdir()) == [pack.path]


def test_two_processes_build_one_pack(
    data: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    processes = [start_packer(data, tmp_path) for _ in range(2)]
    fingerprints = [process.communicate()[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    (path,) = tmp_path.iterdir()
    pack = verify_pack(path)
    assert fingerprints == [pack.fingerprint] * 2
    assert content(pack) == undisturbed


def stopped(done: int, total: int) -> None:
    if done == 3:
        raise KeyboardInterrupt


@pytest.mark.parametrize("workers", [1, 2])
def test_altered_shards_are_rebuilt(
    data: Path,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    monkeypatch.setattr(parallel, "SOLO_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        build_pack(data, tmp_path, workers=1, progress=stopped)
    (left,) = tmp_path.iterdir()
    values = left / "pack" / "values.npy"
    with values.open("r+b") as file:
        file.seek(1_000)  # of the first shard
        file.write(b"\1\1\1\1")
    (left / "shards" / "00001.json").write_text('{"sha256": ')
    read: list[str] = []
    pack = build_pack(data, tmp_path, counting(read) if workers == 1 else KAGGLE, workers=workers)
    assert len(read) == (5 if workers == 1 else 0)
    assert content(pack) == undisturbed


def test_records_without_their_values_are_ignored(
    data: Path, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A packer killed between publishing its pack and deleting its draft leaves them."""
    monkeypatch.setattr(parallel, "SOLO_S", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(draft.Draft, "drop", lambda self: None)
        build_pack(data, tmp_path, workers=1)
    assert content(build_pack(data, tmp_path, workers=2, rebuild=True)) == undisturbed


def test_unreadable_file_does_not_discard_other_shards(
    data: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    last = sorted((data / "train_spectrograms").iterdir())[-1].name

    def read(path: Path) -> np.ndarray:
        if path.name == last:
            raise DataError("a spectrogram file must be readable", got="Permission denied")
        return KAGGLE.read(path)

    with pytest.raises(DataError, match="Permission denied"):
        build_pack(data, tmp_path, replace(KAGGLE, read=read), workers=1)
    seen: list[tuple[int, int]] = []
    pack = build_pack(data, tmp_path, workers=1, progress=lambda *done: seen.append(done))
    assert seen[0] == (5, 6)
    assert content(pack) == undisturbed


def test_concurrent_packers_share_the_work(
    data: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    first: list[str] = []
    second: list[str] = []

    def meet(done: int, total: int) -> None:
        # The second packer starts halfway through the first one's work, and publishes.
        if done == 3 and not second:
            build_pack(data, tmp_path, counting(second), workers=1)

    pack = build_pack(data, tmp_path, counting(first), workers=1, progress=meet)
    assert len(first) == 3
    assert len(second) == 3
    assert not set(first) & set(second)
    assert content(pack) == undisturbed


def test_shards_claimed_by_others_are_made_last(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build_pack(data, tmp_path, workers=1, progress=stopped)
    (left,) = tmp_path.iterdir()
    young, old = left / "claims" / "00003", left / "claims" / "00004"
    for claim in (young, old):
        claim.touch()
    os.utime(old, (time.time() - 2 * draft.CLAIM_AGE_S,) * 2)
    read: list[str] = []
    pack = build_pack(data, tmp_path, counting(read), workers=1)
    names = [f"{number}.parquet" for number in pack.recordings.index]
    assert read == [names[4], names[5], names[3]]


def test_worker_processes_give_identical_bytes(
    data: Path, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "SOLO_S", 0.0)
    assert content(build_pack(data, tmp_path, workers=2)) == undisturbed


PARENT = """
import os, time
from hms_ray.pack.worker_pool import WorkerPool
if __name__ == "__main__":
    pool = WorkerPool(1)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(300)
"""


def test_workers_end_when_their_packer_is_killed() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        helper = int(process.stdout.readline())
        process.kill()
    until = time.monotonic() + 20
    while Path(f"/proc/{helper}").exists():
        if time.monotonic() > until:
            os.kill(helper, signal.SIGKILL)
            raise AssertionError("the worker waits for a parent that has ended")
        time.sleep(0.1)


INTERRUPTED = """
import signal, time
from hms_ray.pack.worker_pool import WorkerPool
if __name__ == "__main__":
    # A shell makes processes in its background ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with WorkerPool(1) as pool:
        future = pool.submit(abs, -1)
        try:
            print("importing", flush=True)
            time.sleep(300)
        except KeyboardInterrupt:
            print(future.result())
"""


def test_ctrl_c_does_not_reach_workers_that_are_still_importing() -> None:
    command = [sys.executable, "-c", INTERRUPTED]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        # As a terminal does: the signal goes to the whole group.
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate(timeout=60) == ("1\n", "")


def test_few_shards_are_held_at_once() -> None:
    taken: list[int] = []

    def shards() -> Iterator[Shard]:
        for number in range(20):
            taken.append(number)
            yield Shard(number, 0, ())

    def make(shard: Shard) -> Any:
        time.sleep(0.001)
        return shard.number

    given = []
    with ThreadPoolExecutor(2) as pool:
        for made in parallel._with_helpers(pool, make, make, shards(), 20, 2):
            given.append(made)
            # Four of the pool, and those that were finished together.
            assert len(taken) - len(given) <= 4 + 4
    assert sorted(given) == taken == list(range(20))  # type: ignore[comparison-overlap]


def die_elsewhere(shard: Shard) -> MadeShard:
    if os.environ.get("PACK_TEST_PARENT") != str(os.getpid()):
        os.kill(os.getpid(), signal.SIGKILL)
    return None  # type: ignore[return-value]


def test_killed_worker_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "SOLO_S", 0.0)
    monkeypatch.setenv("PACK_TEST_PARENT", str(os.getpid()))
    shards = [Shard(number, 0, ()) for number in range(2)]  # one for the worker
    with pytest.raises(PackError, match=r"must not be killed.*to resume; .*--workers N"):
        list(parallel.local_mapper(2, len(shards))(die_elsewhere, shards))


def test_full_disk_keeps_finished_shards(
    data: Path, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite

    def full(fd: int, values: Any, at: int) -> int:
        if at > 2 * 300_000:
            raise OSError(28, "No space left on device")
        return write(fd, values, at)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(PackError, match="got No space left on device"):
            build_pack(data, tmp_path, workers=1)
    seen: list[tuple[int, int]] = []
    pack = build_pack(data, tmp_path, workers=1, progress=lambda *done: seen.append(done))
    assert seen[0][0] > 0
    assert content(pack) == undisturbed


def test_shards_are_stored_once_by_any_process_while_the_draft_exists(
    data: Path, tmp_path: Path
) -> None:
    files = input_files(data, KAGGLE.directory)
    whole = plan.plan_pack(KAGGLE, files, None, "signature", 1)
    here = draft.open_draft(tmp_path / "pack", whole)
    there = pickle.loads(pickle.dumps(here))
    first, second = whole.shards[:2]
    made = make_shard(KAGGLE, first)
    stored = there.store(first, made)
    assert (stored.values, stored.missing, stored.record) == (None, None, made.record)
    assert here.store(first, stored) is stored
    assert here.finished(first) == made.record
    assert made.values is not None
    other = replace(made, values=np.zeros_like(made.values))
    assert here.store(first, other).record == made.record
    assert here.finished(first) == made.record
    here.drop()
    with pytest.raises(draft.DraftGone):
        there.store(second, make_shard(KAGGLE, second))


def test_draft_that_another_packer_began_anew_is_not_published(
    data: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    seen: list[int] = []

    def begin_anew(done: int, total: int) -> None:
        seen.append(done)
        if seen.count(total) == 1 and done == total:
            (left,) = tmp_path.iterdir()
            shutil.rmtree(left)
            with pytest.raises(KeyboardInterrupt):
                build_pack(data, tmp_path, workers=1, progress=stopped)

    pack = build_pack(data, tmp_path, workers=1, progress=begin_anew)
    assert content(pack) == undisturbed
    assert seen == [0, 1, 2, 3, 4, 5, 6, 3, 4, 5, 6]
