"""Questions of trials to the study process: lost, late and answered."""

import asyncio
from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock

import pandas as pd
import pytest
from ray.exceptions import ActorDiedError, GetTimeoutError

from hms_ray.config.pruning import PruneConfig
from hms_ray.dataset.prepare import Prepared
from hms_ray.distributed import progress
from hms_ray.distributed.progress import _Events
from hms_ray.search.pruning import Decision
from hms_ray.storage.run_log import WorkerLogs
from hms_ray.sweep import trial_actor
from hms_ray.sweep.trial_actor import StudyJob, _FoldDecisions

STOP = Decision(stop=True, reason="hopeless", estimate=0.9)


def answered(monkeypatch: pytest.MonkeyPatch, answer: Any) -> MagicMock:
    """An actor whose answer arrives, or whose call raises it."""

    def get(reference: object, timeout: float) -> Any:
        assert timeout < 120, "a trial does not wait for ever"
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(progress.ray, "get", get)
    return MagicMock()


@pytest.mark.parametrize(
    ("answer", "continues"),
    [
        (ActorDiedError(), True),
        (GetTimeoutError("no answer"), True),
        (None, True),
        (replace(STOP, stop=False), True),
        (STOP, False),
    ],
)
def test_trial_continues_unless_it_is_stopped(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, answer: Any, continues: bool
) -> None:
    monkeypatch.setattr(trial_actor, "sums_of_fold", lambda *_: {})
    job = StudyJob(
        prepared.rows_file.parent,
        prepared.rows_file.parent,
        prepared,
        *[None] * 2,  # type: ignore[arg-type]
        events=answered(monkeypatch, answer),
        queue=None,
        logs=WorkerLogs(prepared.rows_file.parent),
        prune=PruneConfig(),
    )
    looks = _FoldDecisions(0, job)
    assert looks.continues(0, pd.DataFrame()) is continues
    assert looks.reason == ("" if continues else STOP.reason)


def test_question_without_an_answer_ends_at_its_timeout() -> None:
    async def run() -> tuple[Any, Any]:
        events = _Events()
        late = await events.ask({"trial": 0}, 0.01)
        (question,) = await events.take(0.0)
        # The next trial's question gets its own answer, not the late one.
        waiting = asyncio.create_task(events.ask({"trial": 1}, 5.0))
        (other,) = await events.take(5.0)
        await events.answer(question["question"], "late")
        await events.answer(other["question"], "in time")
        return late, await waiting

    assert asyncio.run(run()) == (None, "in time")


def test_answer_to_a_question_of_a_lost_actor_is_given_to_nobody() -> None:
    async def run() -> Any:
        lost, restarted = _Events(), _Events()
        unanswered = asyncio.create_task(lost.ask({"trial": 0}, 5.0))
        (question,) = await lost.take(5.0)
        unanswered.cancel()
        waiting = asyncio.create_task(restarted.ask({"trial": 1}, 0.05))
        await restarted.take(5.0)
        await restarted.answer(question["question"], "of trial 0")
        return await waiting

    assert asyncio.run(run()) is None
