"""Packers that are killed, meet, or lose a helper."""

from __future__ import annotations

import json
import os
import pickle
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
from hms_ray.pack import draft, parallel, plan, shard_files
from hms_ray.pack.build import build_pack
from hms_ray.pack.inputs import input_files
from hms_ray.pack.make import MadeShard, make_shard
from hms_ray.pack.plan import Shard
from hms_ray.pack.sources import PackSource, kaggle_source
from hms_ray.pack.store import Pack
from hms_ray.pack.verify import verify_pack
from tests.competition_folder import write_competition_folder

ROOT = Path(__file__).parents[2]

BETWEEN_SHARDS = """
def told(done, total):
    print(done, flush=True)
    if done == 2:
        time.sleep(300)
"""
WITHIN_A_SHARD = """
write = os.pwrite
def torn(fd, data, at):
    if len(data) < 1_000 or at < 2 * 200_000:
        return write(fd, data, at)
    write(fd, data[: len(data) // 2], at)
    print(2, flush=True)
    time.sleep(300)
os.pwrite = torn
told = None
"""
PACK = """
import os, sys, time
from hms_ray.pack import plan
from hms_ray.pack.build import build_pack
plan.SHARD_ITEMS = 1
told = None
{extra}
if __name__ == "__main__":
    pack = build_pack(sys.argv[1], sys.argv[2], workers=1, progress=told)
    print(pack.fingerprint)
"""


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


def content(pack: Pack) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in pack.path.iterdir()}


def counting(counted: list[str]) -> PackSource:
    """The competition's spectrograms, every file that is read written down."""
    source = kaggle_source()
    read = source.read
    assert read is not None

    def read_and_count(path: Path) -> np.ndarray:
        counted.append(path.name)
        return read(path)

    return replace(source, read=read_and_count)


def start(data: Path, packs: Path, extra: str = "") -> subprocess.Popen[str]:
    words = [sys.executable, "-c", PACK.format(extra=extra), str(data), str(packs)]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("moment", [BETWEEN_SHARDS, WITHIN_A_SHARD], ids=["between", "within"])
def test_a_killed_packer_is_gone_on_with(
    data: Path, undisturbed: dict[str, bytes], tmp_path: Path, moment: str
) -> None:
    process = start(data, tmp_path, moment)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "2":
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
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


def test_two_processes_on_one_folder(
    data: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    processes = [start(data, tmp_path) for _ in range(2)]
    told = [process.communicate()[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert told[0] == told[1]
    (path,) = tmp_path.iterdir()
    pack = verify_pack(path)
    assert pack.fingerprint == told[0]
    assert content(pack) == undisturbed


def stopped(done: int, total: int) -> None:
    if done == 3:
        raise KeyboardInterrupt


@pytest.mark.parametrize("workers", [1, 2])
def test_finished_shards_that_were_altered_are_made_again(
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
    pack = build_pack(data, tmp_path, counting(read) if workers == 1 else "kaggle", workers=workers)
    assert len(read) == (5 if workers == 1 else 0)
    assert content(pack) == undisturbed


def test_records_without_their_values_count_for_nothing(
    data: Path, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a packer leaves them that is killed after it published and before it tidied up."""
    monkeypatch.setattr(parallel, "SOLO_S", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(draft.Draft, "drop", lambda self: None)
        build_pack(data, tmp_path, workers=1)
    assert content(build_pack(data, tmp_path, workers=2, rebuild=True)) == undisturbed


def test_one_file_that_cannot_be_read_does_not_cost_the_others(
    data: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    source = kaggle_source()
    last = sorted((data / "train_spectrograms").iterdir())[-1].name

    def read(path: Path) -> np.ndarray:
        if path.name == last:
            raise DataError("a spectrogram file must be readable", got="Permission denied")
        assert source.read is not None
        return source.read(path)

    with pytest.raises(DataError, match="Permission denied"):
        build_pack(data, tmp_path, replace(source, read=read), workers=1)
    seen: list[tuple[int, int]] = []
    pack = build_pack(data, tmp_path, workers=1, progress=lambda *done: seen.append(done))
    assert seen[0] == (5, 6)
    assert content(pack) == undisturbed


def test_packers_share_the_work(data: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    first: list[str] = []
    second: list[str] = []

    def meet(done: int, total: int) -> None:
        # The second comes in the middle of the first's work, and publishes.
        if done == 3 and not second:
            build_pack(data, tmp_path, counting(second), workers=1)

    pack = build_pack(data, tmp_path, counting(first), workers=1, progress=meet)
    assert len(first) == 3
    assert len(second) == 3
    assert not set(first) & set(second)
    assert content(pack) == undisturbed


def test_claimed_shards_come_last(
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


def test_processes_give_the_same(
    data: Path, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "SOLO_S", 0.0)
    assert content(build_pack(data, tmp_path, workers=2)) == undisturbed


PARENT = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from hms_ray.pack.parallel import _begin_worker
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin_worker)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(300)
"""


def test_helpers_end_with_a_killed_packer() -> None:
    words = [sys.executable, "-c", PARENT]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        helper = int(process.stdout.readline())
        process.kill()
    until = time.monotonic() + 20
    while Path(f"/proc/{helper}").exists():
        if time.monotonic() > until:
            os.kill(helper, signal.SIGKILL)
            raise AssertionError("the helper waits for a parent that is gone")
        time.sleep(0.1)


def test_a_shard_is_taken_when_there_is_room_for_it() -> None:
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
        pending = parallel._Countdown(shards(), 20)
        for made in parallel._with_helpers(pool, make, make, pending, 2):
            given.append(made)
            # Four of the pool's, and what was ready at once.
            assert len(taken) - len(given) <= 4 + 4
    assert sorted(given) == taken == list(range(20))  # type: ignore[comparison-overlap]


def die_elsewhere(shard: Shard) -> MadeShard:
    if os.environ.get("PACK_TEST_PARENT") != str(os.getpid()):
        os.kill(os.getpid(), signal.SIGKILL)
    return None  # type: ignore[return-value]


def test_a_killed_helper_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "SOLO_S", 0.0)
    monkeypatch.setenv("PACK_TEST_PARENT", str(os.getpid()))
    shards = [Shard(number, 0, ()) for number in range(2)]  # one is the helper's
    with pytest.raises(PackError) as caught:
        list(parallel.in_process(2, len(shards))(die_elsewhere, shards))
    assert str(caught.value) == (
        "a packing process must live until its work is done, got one that was killed. "
        "Where memory is short use fewer with --workers N; the same command goes on."
    )


def test_a_full_disk_keeps_what_is_finished(
    data: Path, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite

    def full(fd: int, values: Any, at: int) -> int:
        if at > 2 * 300_000:
            raise OSError(28, "No space left on device")
        return write(fd, values, at)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(PackError) as caught:
            build_pack(data, tmp_path, workers=1)
    assert str(caught.value).startswith("a pack must be written whole, got No space left on device")
    seen: list[tuple[int, int]] = []
    pack = build_pack(data, tmp_path, workers=1, progress=lambda *done: seen.append(done))
    assert seen[0][0] > 0
    assert content(pack) == undisturbed


def test_a_summary_of_what_is_missing(data: Path, tmp_path: Path) -> None:
    pack = build_pack(data, tmp_path, workers=1)
    manifest = json.loads((pack.path / "manifest.json").read_text())
    assert manifest["missing"] == {
        "n_with_gaps": int((pack.recordings["n_missing"] > 0).sum()),
        "n_unusable": 0,
        "first_unusable": [],
    }
    assert manifest["missing"]["n_with_gaps"] > 0


def test_a_writer_leaves_what_is_recorded_and_tells_of_a_draft_that_is_gone(
    data: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    source = kaggle_source()
    files = input_files(data, source.directory)
    whole = plan.plan_pack(source, files, None, "signature", 1)
    with draft.Draft(tmp_path / "pack", whole) as open_draft:
        write = pickle.loads(pickle.dumps(open_draft.writer()))
        first, second = whole.shards[:2]
        made = make_shard(source, first)
        told = write(first, made)
        assert (told.values, told.missing, told.sha256) == (None, None, made.sha256)
        record = open_draft.commit(first, told)
        assert open_draft.finished(first) == record
        # Recorded: other values for it are not written, but handed back.
        assert made.values is not None
        other = write(first, replace(made, values=np.zeros_like(made.values)))
        assert other.values is not None
        assert open_draft.commit(first, other) == record
        assert open_draft.finished(first) == record
        open_draft.drop()
        with pytest.raises(shard_files.DraftGone):
            write(second, make_shard(source, second))
