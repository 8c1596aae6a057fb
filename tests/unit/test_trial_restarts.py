"""When the process of a trial is not started again."""

from types import SimpleNamespace
from typing import Any

import pytest

from hms_ray.distributed.job_queue import JobQueue
from hms_ray.errors import TrainingError
from hms_ray.sweep import trial_restarts
from hms_ray.sweep.trial_restarts import TRIAL_RESTARTS, StartLimit, check_restarts
from tests.refused import refusal


def test_a_process_lost_too_often_fails_its_trial_unless_its_machines_were_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue = JobQueue(lost_nodes=lambda nodes: nodes & {"lost"})
    node = "lost"
    context = SimpleNamespace(get_node_id=lambda: node)
    call = SimpleNamespace(remote=lambda name, *words: getattr(queue, name)(*words))
    actor: Any = SimpleNamespace(call=call)
    monkeypatch.setattr(trial_restarts.ray, "get", lambda value: value)
    monkeypatch.setattr(trial_restarts.ray, "get_runtime_context", lambda: context)
    for _ in range(9):
        check_restarts(actor, "7 0")
    node = "alive"
    for _ in range(TRIAL_RESTARTS + 1):
        check_restarts(actor, "7 0")
    with refusal(TrainingError, "start at most 4 times", got="5 starts", fix="Read Ray's logs"):
        check_restarts(actor, "7 0")
    check_restarts(actor, "8 0")


def test_a_trial_whose_process_cannot_start_fails() -> None:
    limit, trial = StartLimit(), SimpleNamespace(trial_id="t", max_failures=-1)

    def fails() -> int:
        limit.on_trial_recover(0, [], trial)
        return trial.max_failures

    for _ in range(TRIAL_RESTARTS):
        assert fails() == -1
    limit.on_trial_start(0, [], trial)
    for _ in range(TRIAL_RESTARTS):
        assert fails() == -1
    assert fails() == 0, "the next failure is final"
