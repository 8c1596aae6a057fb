"""Limits of hours, over all runs of a study."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hms_ray.config.loading import validate_space
from hms_ray.display.run_cost import RunCost
from hms_ray.study.budget import HoursClock


def cost(hours: float, training: float) -> RunCost:
    return RunCost(
        started="2026-01-01T00:00:00+00:00",
        seconds=hours * 3600,
        start_up_s=10.0,
        slots=1,
        n_folds=1,
        images=1,
        training_s=training * 3600,
        evaluated_s=0.0,
    )


@pytest.mark.parametrize(
    ("budget", "resources", "reached"),
    [
        ({}, {}, None),
        ({"hours": 3.1}, {}, None),
        ({"hours": 3}, {}, "budget.hours is used up: 3 of 3"),
        ({"device_hours": 1.6}, {}, None),
        ({"device_hours": 6}, {"workers": 2, "cpus_per_worker": 2}, "device_hours is used up: 6"),
        ({"device_hours": 1.5}, {"workers": 2, "gpus_per_worker": 0.5}, "1.5 of 1.5"),
        ({"device_hours": 1.6}, {"cpus_per_worker": 8, "gpus_per_worker": 1}, None),
    ],
)
def test_hours_of_all_runs_count(
    budget: dict[str, Any], resources: dict[str, Any], reached: str | None
) -> None:
    space = validate_space({"budget": budget, "resources": resources}, "test")
    confirming = replace(cost(50.0, 50.0), work="confirm")
    found = HoursClock(space, [cost(2.0, 1.0), confirming], lambda: cost(1.0, 0.5)).reached()
    if reached is None:
        assert found is None
    else:
        assert found is not None
        assert reached in found
        assert "--set budget." in found


@pytest.mark.parametrize(
    ("hours", "n_finished", "n_retried", "n_missing"),
    [(4, 3, 0, 2), (4, 4, 3, 3), (4, 9, 0, 0), (3, 3, 0, 0), (3, 3, 2, 2)],
)
def test_failed_trials_are_retried_beyond_the_limit_and_no_others(
    hours: float, n_finished: int, n_retried: int, n_missing: int
) -> None:
    space = validate_space({"budget": {"trials": 5, "hours": hours}}, "test")
    clock = HoursClock(space, [cost(2.0, 1.0)], lambda: cost(1.0, 0.5))
    assert clock.n_missing(n_finished, n_retried) == n_missing
    assert clock.reached(n_retried=1) is None
    assert (clock.reached() is not None) is (hours <= 3)
