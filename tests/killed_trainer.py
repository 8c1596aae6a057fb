"""Trains a fold in ranks of their own, of which one is killed at one moment after another.

``python -m tests.killed_trainer FOLDER WORLD_SIZE ...``: FOLDER has ``prepared.pickle`` and gets
a folder for each world size. The ranks are forked, so that torch is imported once.
"""

import os
import pickle
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from hms_ray.dataset.prepare import Prepared
from hms_ray.experiment.fold_task import run_task
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import plan_folds
from hms_ray.storage import atomic
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.resume_folder import CHECKPOINT_FILE
from hms_ray.train import evaluation
from hms_ray.train.process import Process
from hms_ray.train.step import Step
from tests.stage_sharing import GOOD, NOISY, staged

EXPERIMENT = staged(
    {**NOISY, "epochs": 2}, GOOD, batch_size=6, checkpoint="best", next_stage_from="best"
)
MOMENTS = (
    ("step", 1),
    ("evaluation", 2),
    ("step", 4),
    ("checkpoint", 1),
    ("step", 2),
    ("store", 1),
)
"""What is counted from each start, and at which count a rank is killed; the ranks take turns."""


def main(folder: Path, world_size: int, prepared: Prepared) -> None:
    folder.mkdir()
    for name, moments in {"killed": (*MOMENTS, None), "undisturbed": (None,)}.items():
        for number, moment in enumerate(moments):
            # Only the first rank writes.
            victim = 0 if moment and moment[0] in ("checkpoint", "store") else number % world_size
            place = folder / f"{name}-{number}"
            place.mkdir()
            children = [
                fork_rank(
                    partial(train, place, folder / name, rank, world_size, prepared),
                    place / f"error-{rank}",
                    moment if rank == victim else None,
                )
                for rank in range(world_size)
            ]
            codes = [os.waitpid(child, 0)[1] for child in children]
            assert (codes[victim] == signal.SIGKILL) is (moment is not None), (moment, codes)


def fork_rank(train_rank: Callable[[], None], error_file: Path, moment: Any) -> int:
    child = os.fork()
    if child:
        return child
    try:
        if moment:
            kill_at(*moment)
        train_rank()
    except BaseException as error:
        error_file.write_text(repr(error))
        os._exit(1)
    os._exit(0)


def kill_at(kind: str, count: int) -> None:
    """Kills this process when something happens for the n-th time."""
    seen = 0

    def happens() -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)

    if kind == "checkpoint":
        # The file is written by half and not yet in its place.
        flush = atomic._flush

        def torn(path: Path) -> None:
            if path.parent.parent.name == "resume" and path.stat().st_size > 1000:
                os.truncate(path, 1000)
                happens()
            flush(path)

        atomic._flush = torn
        return
    owner, name = {
        "step": (Step, "__call__"),
        "evaluation": (evaluation, "predict_rows"),
        "store": (FoldStore, "write"),
    }[kind]
    call = getattr(owner, name)

    def counting(*arguments: Any, **options: Any) -> Any:
        happens()
        return call(*arguments, **options)

    setattr(owner, name, counting)


def train(place: Path, results: Path, rank: int, world_size: int, prepared: Prepared) -> None:
    if world_size > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{place}/group", rank=rank, world_size=world_size
        )
    placement = Placement(world_size=world_size)
    (task,) = plan_folds(EXPERIMENT, prepared, results, placement, [0])
    # Stages are shared in neither run: what resumes is the checkpoint alone.
    task = replace(task, checkpoint_every_s=0.0, share_stages=False)

    def report(record: dict[str, Any]) -> None:
        with (place / "reports").open("a") as file:
            event = record.get("event", "evaluation")
            file.write(f"{event} {record['stage']} {record['epoch']:g}\n")

    run_task(task, Process(rank, world_size, report=report))
    assert not list(results.rglob(CHECKPOINT_FILE))


if __name__ == "__main__":
    torch.set_num_threads(1)
    prepared_folds = pickle.loads((Path(sys.argv[1]) / "prepared.pickle").read_bytes())
    for size in map(int, sys.argv[2:]):
        main(Path(sys.argv[1], str(size)), size, prepared_folds)
