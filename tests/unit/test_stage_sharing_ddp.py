"""Stages taken from the store by two gloo ranks, of which the first one alone looks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from hms_ray.dataset.prepare import Prepared, prepare
from hms_ray.experiment.fold_task import FoldTask, run_task
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import plan_folds
from hms_ray.storage.fold_store import FoldStore, StoredFold
from hms_ray.train.process import Process
from hms_ray.train.selection import kept_record
from tests.competition_folder import write_competition_folder
from tests.stage_sharing import GOOD, NOISY, assert_equal_folds, counted_steps, staged

BEST = {"checkpoint": "best", "next_stage_from": "best"}
TWO, ONE = (staged({**NOISY, "epochs": 2}, *more, **BEST) for more in ([GOOD], []))


def task_of(experiment: Any, prepared: Prepared, results: Path, share: bool = True) -> FoldTask:
    (task,) = plan_folds(experiment, prepared, results, Placement(world_size=2), [0])
    return replace(task, share_stages=share)


def train_rank(rank: int, folder: str, prepared: Prepared) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    process, steps = Process(rank, 2), {}
    # A second rank that looked for itself would find nothing, and train what is known.
    results = Path(folder, "results") if rank == 0 else Path(folder, "empty")
    for name, experiments in {
        "off": [TWO],
        "in one go": [TWO],
        "in two": [ONE, TWO],
    }.items():
        for experiment in experiments:
            task = task_of(experiment, prepared, results / name, share=name != "off")
            with counted_steps() as count:
                run_task(task, process)
            steps.setdefault(name, []).append(count[0])
    if rank == 0:
        part = task_of(TWO, prepared, results / "in two").truncated(1)
        FoldStore(part.results).path(part.key).joinpath("weights.pt").write_bytes(b"damaged")
    dist.barrier()
    third = staged({**NOISY, "epochs": 2}, {**GOOD, "epochs": 1}, **BEST)
    with counted_steps() as count:
        run_task(task_of(third, prepared, results / "in two"), process)
    torch.save((steps, count[0]), f"{folder}/rank_{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def prepared(folder: Path) -> Prepared:
    return prepare(write_competition_folder(folder / "hms", 6), TWO, folder)


@pytest.fixture(scope="module")
def ranks(folder: Path, prepared: Prepared) -> list[Any]:
    mp.spawn(train_rank, args=(str(folder), prepared), nprocs=2)
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.usefixtures("ranks")
@pytest.mark.parametrize("way", ["in one go", "in two"])
def test_two_ranks_share_stages_bit_for_bit(way: str, folder: Path, prepared: Prepared) -> None:
    def stored(name: str) -> StoredFold:
        task = task_of(TWO, prepared, folder / "results" / name)
        return FoldStore(task.results).read(task.key)

    assert_equal_folds(stored(way), stored("off"))
    assert (stored(way).record["reused_stages"] is not None) is (way == "in two")
    noisy = [line for line in stored(way).record["history"] if line["stage"] == "noisy"]
    assert kept_record(noisy)["epoch"] < 2, "the last evaluation would prove little"


def test_rank_0_decides_for_all(ranks: list[Any], folder: Path) -> None:
    (first, _), (second, _) = ranks
    assert first == second
    noisy, good = first["in two"]
    assert first["off"] == first["in one go"] == [noisy + good]
    assert noisy > 0 < good
    assert not list((folder / "empty").rglob("record.json"))


def test_all_ranks_train_a_damaged_stage_again(ranks: list[Any], folder: Path) -> None:
    (steps, first), (_, second) = ranks
    noisy, _ = steps["in two"]
    assert first == second > noisy
    assert len(list((folder / "results" / "in two" / ".store" / "damaged").iterdir())) == 1
