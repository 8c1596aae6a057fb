"""Packing as Ray tasks: the bytes of in-process packing, and errors as they were."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from hms_ray.config.eeg_recipes import EegRecipe
from hms_ray.distributed import pack_mapper
from hms_ray.distributed.cluster import Cluster
from hms_ray.distributed.pack_mapper import map_on_ray, ray_mapper
from hms_ray.errors import DataError, PackError, ResourceError
from hms_ray.pack import plan
from hms_ray.pack.build import build_pack
from hms_ray.pack.make import MadeShard
from hms_ray.pack.plan import Shard
from hms_ray.pack.sources import KAGGLE, eeg_source
from hms_ray.pack.windows import Windows
from tests.competition_folder import write_competition_folder

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("connected")]

WINDOWS = Windows(np.array([500_000, 500_000, 500_007, 500_014]), np.array([0, 200, 0, 0]))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_competition_folder(tmp_path_factory.mktemp("data") / "data", 4)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SHARD_ITEMS", 1)


@pytest.mark.parametrize("name", ["kaggle", "eeg"])
def test_tasks_write_the_same_bytes_as_this_process(data: Path, tmp_path: Path, name: str) -> None:
    source, windows = KAGGLE, None
    if name == "eeg":
        source, windows = eeg_source("eeg", EegRecipe()), WINDOWS
    here = build_pack(data, tmp_path / "here", source, windows, workers=1)
    seen: list[tuple[int, int]] = []
    with ray_mapper(None, data) as mapper:
        there = build_pack(
            data,
            tmp_path / "there",
            source,
            windows,
            mapper=mapper,
            progress=lambda *done: seen.append(done),
        )
    assert there.fingerprint == here.fingerprint
    for file in here.path.iterdir():
        assert (there.path / file.name).read_bytes() == file.read_bytes()
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] == len(here.recordings)


def test_hms_ray_error_of_a_task_is_raised_unchanged(data: Path, tmp_path: Path) -> None:
    windows = Windows(np.array([500_000]), np.array([1_000_000]))
    with ray_mapper(None, data) as mapper, pytest.raises(DataError) as caught:
        build_pack(data, tmp_path, eeg_source("eeg", EegRecipe()), windows, mapper=mapper)
    assert "must lie within" in caught.value.rule
    assert "1000000" in str(caught.value.got)
    assert "hms-ray check" in str(caught.value.fix)


def test_node_that_does_not_see_the_folder_is_an_error(connected: Cluster, tmp_path: Path) -> None:
    shards = [Shard(0, 0, ())]
    with pytest.raises(PackError) as caught:
        list(map_on_ray(connected, tmp_path / "elsewhere", fail, shards))
    assert "under the same path" in caught.value.rule
    assert str(caught.value.where) == str(tmp_path / "elsewhere")
    assert "shared file system" in str(caught.value.fix)


def fail(shard: Shard) -> MadeShard:
    raise RuntimeError("first line\nsomething else")


def die(shard: Shard) -> MadeShard:
    os._exit(1)


def test_other_errors_of_a_task_are_one_line(connected: Cluster, tmp_path: Path) -> None:
    with pytest.raises(PackError) as caught:
        list(map_on_ray(connected, tmp_path, fail, [Shard(3, 0, ())]))
    assert caught.value.got == "RuntimeError: something else"
    assert caught.value.where == "shard 3"


def test_shard_that_always_kills_its_task_is_an_error(
    connected: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_mapper, "_MAX_RETRIES", 1)
    with pytest.raises(ResourceError) as caught:
        list(map_on_ray(connected, tmp_path, die, [Shard(3, 0, ())]))
    assert "within 2 attempts" in caught.value.rule
    assert caught.value.where == "shard 3"
