"""Copies of packs on a machine's own disk: once per machine, checked, and never a must."""

from __future__ import annotations

import errno
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hms_ray.config.space import ResourcesConfig, Space
from hms_ray.dataset.prepare import PackRef, open_prepared
from hms_ray.distributed import queue_actor
from hms_ray.distributed.job import Job
from hms_ray.errors import DataError, PackError
from hms_ray.experiment import fold_data, fold_task, in_process
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.pack import local_copy as module
from hms_ray.pack.layout import VALUES_FILE, read_pack_manifest
from hms_ray.pack.local_copy import local_copy
from hms_ray.pack.store import open_pack
from hms_ray.storage.drafts import DRAFT_PREFIX
from hms_ray.storage.run_log import WorkerLogs
from hms_ray.train.process import Process
from tests.refused import refusal
from tests.unit.test_job_queue import HERE, job


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "disk" / "hms"


def copied(pack: Path, cache: Path) -> Path:
    return local_copy(pack, read_pack_manifest(pack)["fingerprint"], cache)


def count_copies(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are copied from now on."""
    names: list[str] = []

    def copy(source: Path, place: Path) -> None:
        names.append(source.name)
        place.write_bytes(source.read_bytes())

    monkeypatch.setattr(module.shutil, "copyfile", copy)
    return names


def leftovers(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if path.name.startswith(DRAFT_PREFIX)]


def test_workers_of_a_machine_make_one_copy(
    pack_copy: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = count_copies(monkeypatch)
    with ThreadPoolExecutor(8) as pool:
        copies = set(pool.map(lambda _: copied(pack_copy, cache), range(8)))
    assert len(copies) == 1
    (copy,) = copies
    assert sorted(names) == sorted({"manifest.json", *read_pack_manifest(pack_copy)["files"]})
    assert copy.parent == cache
    assert cache.stat().st_mode & 0o777 == 0o700
    assert not leftovers(cache)
    np.testing.assert_array_equal(open_pack(copy).values, open_pack(pack_copy).values)


def test_a_prepared_pack_is_opened_from_its_copy(pack_copy: Path, cache: Path) -> None:
    ref = PackRef(pack_copy, read_pack_manifest(pack_copy)["fingerprint"])
    assert open_prepared(ref).path == pack_copy
    opened = open_prepared(ref, cache)
    assert opened.path.parent == cache
    assert opened.fingerprint == ref.fingerprint


@pytest.mark.parametrize("damage", ["changed", "truncated", "missing", "manifest"])
def test_a_damaged_copy_is_made_again(
    damage: str, pack_copy: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copied(pack_copy, cache)
    values = copy / VALUES_FILE
    if damage == "changed":
        content = bytearray(values.read_bytes())
        content[-1] ^= 1
        values.write_bytes(content)
    elif damage == "truncated":
        os.truncate(values, 100)
    elif damage == "missing":
        values.unlink()
    else:
        (copy / "manifest.json").unlink()
    names = count_copies(monkeypatch)
    assert copied(pack_copy, cache) == copy
    assert VALUES_FILE in names
    assert values.read_bytes() == (pack_copy / VALUES_FILE).read_bytes()


def test_a_part_of_a_copy_that_a_killed_worker_left_is_removed(
    pack_copy: Path, cache: Path
) -> None:
    part = cache / f"{DRAFT_PREFIX}{module._LABEL}0"
    part.mkdir(parents=True)
    (part / VALUES_FILE).write_bytes(b"half")
    os.utime(part, (0, 0))
    os.utime(part / VALUES_FILE, (0, 0))
    assert copied(pack_copy, cache).parent == cache
    assert not leftovers(cache)


def test_a_copy_that_differs_is_not_used(
    pack_copy: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def copy(source: Path, place: Path) -> None:
        content = bytearray(source.read_bytes())
        if source.name == VALUES_FILE:
            content[-1] ^= 1
        place.write_bytes(content)

    monkeypatch.setattr(module.shutil, "copyfile", copy)
    assert copied(pack_copy, cache) == pack_copy
    assert "the copy differs from the pack" in caplog.text
    assert not leftovers(cache)


def test_a_damaged_pack_is_an_error(pack_copy: Path, cache: Path) -> None:
    content = bytearray((pack_copy / VALUES_FILE).read_bytes())
    content[-1] ^= 1
    (pack_copy / VALUES_FILE).write_bytes(content)
    with refusal(PackError, "must match its checksum", where=str(pack_copy), fix="Build it again"):
        copied(pack_copy, cache)


def test_a_full_disk_is_one_warning(
    pack_copy: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def copy(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.shutil, "copyfile", copy)
    caplog.set_level(logging.WARNING)
    assert [copied(pack_copy, cache) for _ in range(3)] == [pack_copy] * 3
    assert len(caplog.records) == 1
    assert f"no local copies in {cache} (No space left on device)" in caplog.text
    assert not leftovers(cache)


def test_a_folder_of_another_user_is_not_trusted(
    pack_copy: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module.os, "getuid", lambda: 12345)
    assert copied(pack_copy, cache) == pack_copy
    assert "the folder belongs to another user" in caplog.text


def test_a_pack_that_was_built_again_is_not_copied(pack_copy: Path, cache: Path) -> None:
    with refusal(DataError, "must not change while it is in use", where=str(pack_copy)):
        open_prepared(PackRef(pack_copy, "0" * 64), cache)


def test_folds_get_the_folder_from_the_resources(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: list[FoldTask] = []

    def keep(_: Any, left: list[Job], __: Any) -> None:
        tasks.extend(one.task for one in left)
        left.clear()

    monkeypatch.setattr(in_process, "run_task", lambda task, _: tasks.append(task))
    monkeypatch.setattr(queue_actor.QueueRunner, "_run", keep)
    resources = ResourcesConfig(local_cache=cache)
    task = job("a", 0).task
    in_process.InProcessRunner(device="cpu", local_cache=cache)._train(task, print)
    queue_actor.QueueRunner(None, resources, logs=WorkerLogs(HERE)).run([task], print)
    assert [task.local_cache for task in tasks] == [cache, cache]


def test_a_fold_opens_its_packs_there(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Opened(Exception):  # noqa: N818 - no error
        pass

    def open_one(ref: PackRef, local_cache: Path | None) -> None:
        raise Opened(ref, local_cache)

    ref = PackRef(Path("pack"), "0")
    rows = pd.DataFrame({"fold": [0]})
    prepared = SimpleNamespace(rows=lambda: rows, packs_of=lambda _, label_rows: {"kaggle": ref})
    monkeypatch.setattr(fold_data, "open_prepared", open_one)
    task: Any = replace(job("a", 0).task, prepared=prepared, local_cache=cache)
    with pytest.raises(Opened) as opened:
        fold_task._train_task(task, Process(), None)  # type: ignore[arg-type]
    assert opened.value.args == (ref, cache)


def test_the_folder_is_the_same_on_every_machine(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="local_cache must be an absolute path, got cache"):
        ResourcesConfig(local_cache="cache")
    space = Space(resources=ResourcesConfig(local_cache=tmp_path))
    again = Space.model_validate(space.model_dump(mode="json"))
    assert again.resources.local_cache == tmp_path
