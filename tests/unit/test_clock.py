"""Where the time of a fold's training went."""

from __future__ import annotations

import pytest

from hms_ray.train import clock as clock_module
from hms_ray.train.clock import Clock


def test_lap_adds_the_time_since_the_previous_lap(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([12.0, 15.0, 16.0, 20.0])
    monkeypatch.setattr(clock_module.time, "perf_counter", lambda: next(moments))
    clock = Clock(started=10.0)
    clock.lap("prepare_s")
    clock.lap("train_s")
    clock.lap("train_s")
    clock.images = 8
    assert clock.timing() == {
        "total_s": 10.0,
        "prepare_s": 2.0,
        "train_s": 4.0,
        "images_per_s": 2.0,
    }
