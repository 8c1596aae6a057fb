"""Why the run of a worker group has ended."""

from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.train import ControllerError, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from hms_ray.config.space import ResourcesConfig
from hms_ray.distributed import worker_group
from hms_ray.distributed.worker_group import run_group

FULL = OutOfMemoryError(
    "1 worker(s) were killed due to the node running low on memory.\nMemory ..."
)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        # Ray Train takes a worker that Ray's memory monitor killed for an error of its own.
        (ControllerError(FULL), "1 worker(s) were killed due to the node running low on memory."),
        (WorkerGroupError("training failed", {1: FULL}), "running low on memory"),
        (
            WorkerGroupError("training failed", {0: WorkerHealthCheckFailedError("check", FULL)}),
            "OutOfMemoryError: 1 worker(s) were killed due to the node running low on memory.",
        ),
        (ActorDiedError(), "The actor died unexpectedly"),
        (None, None),
    ],
    ids=[
        "memory, by the controller",
        "memory, by a worker",
        "memory, by a check",
        "controller",
        "given back",
    ],
)
def test_a_lost_group_returns_the_reason(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, reason: str | None
) -> None:
    made: dict[str, Any] = {}

    class Trainer:
        def __init__(self, train: Any, **settings: Any) -> None:
            made.update(settings)

        def fit(self) -> None:
            if error is not None:
                raise error

    monkeypatch.setattr(worker_group, "_Trainer", Trainer)
    ended = run_group(None, "group-0", "group-0-1f", ResourcesConfig(), Path("scratch"))
    assert ended is None if reason is None else reason in (ended or "")
    run = made["run_config"]
    assert (run.name, run.failure_config.max_failures) == ("group-0-1f", -1)


def test_a_group_starts_no_actor_that_it_has_no_use_for(tmp_path: Path) -> None:
    run = RunConfig(name="x", storage_path=str(tmp_path))
    trainer = worker_group._Trainer(print, run_config=run, scaling_config=ScalingConfig())
    names = {type(callback).__name__ for callback in trainer._create_default_callbacks()}
    assert {"AcceleratorSetupCallback", "BackendSetupCallback"} <= names
    assert not names & {"DatasetsCallback", "PlacementGroupCleanerCallback"}
