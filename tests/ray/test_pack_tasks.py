"""Packing as Ray tasks: the bytes of in-process packing, and errors as they were."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hms_ray.config.eeg_recipes import EegRecipe
from hms_ray.distributed.cluster import Cluster, session
from hms_ray.distributed.pack_mapper import map_on_ray, ray_mapper
from hms_ray.errors import DataError, PackError, ResourceError
from hms_ray.pack import plan
from hms_ray.pack.build import build_pack
from hms_ray.pack.make import MadeShard
from hms_ray.pack.plan import Shard
from hms_ray.pack.sources import eeg_source
from hms_ray.pack.windows import Windows
from tests.competition_folder import write_competition_folder

pytestmark = pytest.mark.ray

WINDOWS = Windows(np.array([500_000, 500_000, 500_007, 500_014]), np.array([0, 200, 0, 0]))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_competition_folder(tmp_path_factory.mktemp("data") / "data", 4)


@pytest.fixture(scope="module", autouse=True)
def connected() -> Iterator[Cluster]:
    with session() as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SHARD_ITEMS", 1)


@pytest.mark.parametrize("name", ["kaggle", "eeg"])
def test_tasks_give_the_bytes_of_this_process(data: Path, tmp_path: Path, name: str) -> None:
    source, windows = "kaggle", None
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


def test_an_error_raised_on_purpose_comes_as_it_was(data: Path, tmp_path: Path) -> None:
    windows = Windows(np.array([500_000]), np.array([1_000_000]))
    with ray_mapper(None, data) as mapper, pytest.raises(DataError) as caught:
        build_pack(data, tmp_path, eeg_source("eeg", EegRecipe()), windows, mapper=mapper)
    assert "a row's window must lie within its EEG, got samples 1000000 to" in str(caught.value)
    assert str(caught.value).endswith("See what is wrong with: hms-ray check DIR")


def test_a_node_without_the_folder_says_so(connected: Cluster, tmp_path: Path) -> None:
    shards = [Shard(0, 0, ())]
    with pytest.raises(PackError) as caught:
        list(map_on_ray(connected, tmp_path / "elsewhere", fail, shards))
    text = str(caught.value)
    assert text.startswith(
        "every node must see the competition folder under the same path, got no such folder on "
    )
    assert text.endswith(
        f"in {tmp_path / 'elsewhere'}. Keep it on a shared file system, as cluster/README.md says."
    )


def fail(shard: Shard) -> MadeShard:
    raise RuntimeError("first line\nsomething else")


def die(shard: Shard) -> MadeShard:
    os._exit(1)


def test_any_other_failure_is_one_line(connected: Cluster, tmp_path: Path) -> None:
    with pytest.raises(PackError) as caught:
        list(map_on_ray(connected, tmp_path, fail, [Shard(3, 0, ())]))
    assert str(caught.value) == (
        "a shard must be made by its task, got RuntimeError: something else, in shard 3"
    )


def test_a_shard_that_kills_its_task_again_and_again(connected: Cluster, tmp_path: Path) -> None:
    with pytest.raises(ResourceError) as caught:
        list(map_on_ray(connected, tmp_path, die, [Shard(3, 0, ())]))
    assert str(caught.value).startswith("a shard must be made within 4 attempts, got ")
    assert str(caught.value).endswith(
        "in shard 3. Look after the cluster's nodes and memory; the same command goes on."
    )
