"""A rank that hangs: its watch ends the process, and its stacks are in its log."""

import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from hms_ray.distributed import stall_watch
from hms_ray.distributed.stall_watch import ENDED_BY_WATCH, StallWatch
from hms_ray.train import fold_training
from hms_ray.train.loop import train_fold
from hms_ray.train.process import Process
from hms_ray.train.pulse import Pulse, RankPulse
from tests.fold_data import example_experiment, example_fold

TIMEOUT_S = 0.4


class Watched:
    """A watch whose queue answers as a test says, and that ends nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.answer: Any = ""
        self.pulses: list[RankPulse] = []
        self.ended = threading.Event()
        self.status: list[int] = []
        monkeypatch.setattr(stall_watch.ray, "get", self._get)
        monkeypatch.setattr(stall_watch.os, "_exit", self._exit)
        self.pulse, self.log = Pulse(), folder / "logs" / "log.txt"
        queue = SimpleNamespace(pulse=SimpleNamespace(remote=lambda seat, rank, pulse: pulse))
        self.watch = StallWatch(queue, 5, 1, 2, self.pulse, TIMEOUT_S, self.log)

    def _get(self, pulse: RankPulse) -> Any:
        self.pulses.append(pulse)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def _exit(self, status: int) -> None:
        self.answer = ""
        self.pulse.beat()
        self.status.append(status)
        self.ended.set()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Watched:
    return Watched(monkeypatch, tmp_path)


def test_nothing_is_reported_before_loading_has_ended(watched: Watched) -> None:
    with watched.watch:
        watched.answer = "no step"
        assert not watched.ended.wait(TIMEOUT_S / 2)
        assert watched.pulses == []
        watched.pulse.begin()
        watched.pulse.advance()
        assert watched.ended.wait(10)
    assert watched.pulses[0].place == 2
    assert watched.pulses[0].position == 1
    assert watched.pulses[0].age_s < TIMEOUT_S
    assert watched.pulses[0].log == str(watched.log)


def test_stacks_of_a_rank_that_the_queue_ends_are_in_its_log(watched: Watched) -> None:
    watched.pulse.begin()
    with watched.watch:
        watched.answer = "no step for 3 s"
        assert watched.ended.wait(10)
    assert watched.status[0] == ENDED_BY_WATCH
    text = watched.log.read_text()
    assert "most recent call first" in text
    assert "test_stacks_of_a_rank_that_the_queue_ends_are_in_its_log" in text


@pytest.mark.parametrize("answer", [None, ActorDiedError()], ids=["new queue", "lost queue"])
def test_without_a_queue_that_knows_the_seat_its_own_time_decides(
    watched: Watched, answer: Any
) -> None:
    watched.pulse.begin()
    with watched.watch:
        watched.answer = answer
        while len(watched.pulses) < 3:
            watched.pulse.beat()
            time.sleep(0.01)
        assert not watched.ended.is_set()
        assert watched.ended.wait(10)
    assert watched.pulses[-1].age_s >= TIMEOUT_S or len(watched.status) > 0


HELD = """
    import ctypes, sys, types
    sys.modules["ray"] = types.ModuleType("ray")  # takes seconds to import
    from pathlib import Path
    from hms_ray.distributed.stall_watch import StallWatch
    from hms_ray.train.pulse import Pulse

    def keep_the_lock():
        ctypes.PyDLL(None).usleep(20_000_000)

    pulse = Pulse()
    with StallWatch(None, 0, 0, 0, pulse, 0.3, Path(sys.argv[1])):
        pulse.begin()
        keep_the_lock()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs usleep of the C library")
def test_a_process_in_which_no_thread_can_run_is_ended_too(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(HELD), str(tmp_path / "log.txt")]
    ended = subprocess.run(command, timeout=15, check=False)
    assert ended.returncode == 1
    assert "in keep_the_lock" in (tmp_path / "log.txt").read_text()


def test_training_shows_its_pulse_once_the_model_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    process, made = Process(), fold_training.build_model

    def build_model(*arguments: Any) -> Any:
        assert not process.pulse.begun
        return made(*arguments)

    monkeypatch.setattr(fold_training, "build_model", build_model)
    n_steps: list[int] = []
    process = Process(on_step=lambda: n_steps.append(process.pulse.position))
    train_fold(example_experiment(), example_fold(), 0, process)
    assert process.pulse.begun
    assert n_steps == sorted(set(n_steps))
    assert process.pulse.position > 2 * len(n_steps), "batches of evaluations count too"
