"""The actor that collects progress events is killed: the view continues."""

import os
import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from hms_ray.distributed.progress import EventPump, ask
from tests.ray.worker_groups import process_of

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("connected")]


def test_view_and_questions_continue_after_the_progress_actor_was_killed() -> None:
    seen: dict[str, threading.Event] = {text: threading.Event() for text in ("first", "second")}

    def handle(event: dict[str, Any]) -> None:
        # One that cannot be shown costs no other one.
        seen[event["text"]].set()

    view: Any = SimpleNamespace(handle=handle)
    with EventPump(view, lambda question: question["number"] + 1) as pump:
        pump.message("cannot be shown: a KeyError")
        pump.message("first")
        assert seen["first"].wait(30)
        os.kill(process_of(pump.events), signal.SIGKILL)
        n_sent = 0
        while not seen["second"].wait(0.5):
            # One that is on its way when the actor is lost is lost with it.
            pump.message("second")
            n_sent += 1
            assert n_sent < 60
        assert ask(pump.events, {"number": 1}) == 2
