"""An experiment of two folds, a worker group that trains it, and a file for its events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray._private.state import state

from hms_ray.config.loading import validate_space
from hms_ray.config.space import ResourcesConfig
from hms_ray.distributed.job import Train
from hms_ray.distributed.queue_actor import QueueRunner
from hms_ray.distributed.standing_groups import StandingGroups
from hms_ray.experiment.fold_task import run_task
from hms_ray.storage.run_log import WorkerLogs

# Equal predictions would prove little without dropout, drop path and CutMix.
EXPERIMENT = validate_space(
    {
        "experiment": {
            "data": {"n_folds": 2},
            "input": {"downsample": [10, 10], "normalisation": "global"},
            "model": {
                "name": "test_efficientnet",
                "pretrained": False,
                "dropout": 0.2,
                "drop_path": 0.2,
            },
            "training": {
                "batch_size": 16,
                "augment": {"cutmix": {"probability": 1.0}},
                "stages": [
                    {"name": "noisy", "rows": "below_threshold", "epochs": 1},
                    {"name": "good", "rows": "at_least_threshold", "epochs": 2},
                ],
            },
        }
    },
    "test",
).experiment


def process_of(actor: Any) -> int:
    """The id of the process of an actor."""
    pid: int = state.actor_table(actor._actor_id.hex())["Pid"]
    return pid


@contextmanager
def standing_groups(scratch: Path, **resources: Any) -> Iterator[Groups]:
    """Worker groups that stay while a block runs."""
    config = ResourcesConfig(health_check_interval_s=0.2, **resources)
    said: list[str] = []
    with StandingGroups(config, scratch / "scratch", said.append) as groups:
        yield Groups(groups, config, WorkerLogs(scratch), said)


@dataclass(frozen=True)
class Groups:
    """Standing groups and what they said; ``runner`` makes any number of runners for them."""

    standing: StandingGroups
    resources: ResourcesConfig
    logs: WorkerLogs
    said: list[str]

    def runner(self, train: Train = run_task, trial: int | None = None) -> QueueRunner:
        return QueueRunner(
            self.standing.queue, self.resources, logs=self.logs, train=train, trial=trial
        )


class EventFile:
    """Writes events to a file, from any process."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, record: dict[str, Any]) -> None:
        with self.file.open("a") as stream:
            print(json.dumps(record), file=stream)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()]
