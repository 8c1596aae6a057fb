"""Events of a run's processes, brought to the view of the command that started it."""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hms_ray.display.live import ProgressView
from hms_ray.storage.run_log import FaultLog

logger = logging.getLogger(__name__)

POLL_S = 0.5
ANSWER_TIMEOUT_S = 60.0
SHUTDOWN_TIMEOUT_S = 10.0


class _Events:
    """An actor that collects the events of all processes, and passes on their questions."""

    def __init__(self) -> None:
        self._waiting: list[dict[str, Any]] = []
        self._changed = asyncio.Event()
        self._asked: dict[str, asyncio.Future[Any]] = {}

    async def put(self, event: dict[str, Any]) -> None:
        self._waiting.append(event)
        self._changed.set()

    async def take(self, wait_s: float) -> list[dict[str, Any]]:
        """All events since the last call; waits some time for the first one."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait(), wait_s)
        self._changed.clear()
        taken, self._waiting = self._waiting, []
        return taken

    async def ask(self, question: dict[str, Any], timeout_s: float) -> Any:
        """Waits for the answer of the command; None if it does not come in time."""
        # Not a count: an answer to a question of a lost actor must not fit one of its successor.
        name, future = uuid.uuid4().hex, asyncio.get_running_loop().create_future()
        self._asked[name] = future
        await self.put({**question, "event": "question", "question": name})
        try:
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            return None
        finally:
            del self._asked[name]

    async def answer(self, name: str, answer: Any) -> None:
        """Answers a question, unless nobody waits for it any more."""
        future = self._asked.get(name)
        if future is not None and not future.done():
            future.set_result(answer)


_faults = FaultLog(logger)


def send_event(events: Any, event: dict[str, Any], **fields: object) -> None:
    """Sends an event to the command, from any process; never waits and never fails.

    Args:
        events: handle of the actor that collects them.
        event: see ``TrainingProgress``.
        fields: added to the event, such as the number of its ``trial``.
    """
    with _faults("a progress event was not sent"):
        events.put.remote({**event, **fields})


def ask(events: Any, question: dict[str, Any], timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
    """Asks the study process, from any process, and waits; None without an answer.

    Args:
        events: handle of the actor that collects events.
        question: plain data and arrays, for the handler of ``EventPump``.
        timeout_s: longest time to wait; a lost actor ends the wait too.
    """
    with _faults("a question was not answered"):
        return ray.get(events.ask.remote(question, timeout_s), timeout=timeout_s + 10)
    return None


class EventPump:
    """Passes events to a view as they come, from a thread, while a block runs.

    Args:
        view: shows them.
        answer: answers questions, in the thread of the pump.
    """

    def __init__(
        self,
        view: ProgressView,
        answer: Callable[[dict[str, Any]], Any] = lambda question: None,
    ) -> None:
        self._view, self._answer = view, answer
        self._stopping = threading.Event()
        # On this machine, whose end is that of the run anyway.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.events = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(
            _Events
        ).remote()
        self.send = partial(send_event, self.events)
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)

    def __enter__(self) -> EventPump:
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._stopping.set()
        # On a busy machine the last events come late.
        self._thread.join(timeout=SHUTDOWN_TIMEOUT_S)

    def message(self, text: str) -> None:
        """Shows a line after the events sent before it."""
        self.send({"event": "message", "text": text})

    def _follow(self) -> None:
        stopping = False
        while not stopping:
            # Once more after the end, for what was sent before it.
            stopping = self._stopping.is_set()
            # The run does not depend on it; a restarted actor has the events to come.
            with _faults("progress events were lost"):
                for event in ray.get(self.events.take.remote(0.0 if stopping else POLL_S)):
                    if event["event"] == "question":
                        self._reply(event)
                        continue
                    # One that cannot be shown must not take the others with it.
                    with _faults("a progress event was not shown"):
                        self._view.handle(event)
                continue
            # The actor could not be reached.
            self._stopping.wait(POLL_S)

    def _reply(self, question: dict[str, Any]) -> None:
        answer = None
        with _faults("a question was not answered"):
            answer = self._answer(question)
        self.events.answer.remote(question["question"], answer)
