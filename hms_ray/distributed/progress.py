"""Events of a run's processes, brought to the view of the command that started it."""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import Any

import ray

from hms_ray.report.live import ProgressView
from hms_ray.storage.run_log import FaultLog

logger = logging.getLogger(__name__)

POLL_S = 0.5
SHUTDOWN_TIMEOUT_S = 10.0


class _Events:
    """An actor that collects the events of all processes."""

    def __init__(self) -> None:
        self._waiting: list[dict[str, Any]] = []

    def put(self, event: dict[str, Any]) -> None:
        self._waiting.append(event)

    def take(self) -> list[dict[str, Any]]:
        """All events since the last call."""
        taken, self._waiting = self._waiting, []
        return taken


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


class EventPump:
    """Passes events to a view as they come, from a thread, while a block runs.

    Args:
        view: shows them.
    """

    def __init__(self, view: ProgressView) -> None:
        self._view = view
        self._stopping = threading.Event()
        self.events = ray.remote(num_cpus=0, max_restarts=-1)(_Events).remote()
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
            stopping = self._stopping.wait(POLL_S)
            # The run does not depend on it; a restarted actor has the events to come.
            with _faults("progress events were lost"):
                for event in ray.get(self.events.take.remote()):
                    self._view.handle(event)
