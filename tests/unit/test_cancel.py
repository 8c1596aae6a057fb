"""A fold ends on all ranks at the same step, soon after it was cancelled."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from hms_ray.errors import FoldCancelled
from hms_ray.train.cancel import cancellable
from hms_ray.train.loop import train_fold
from hms_ray.train.process import Process
from tests.fold_data import example_experiment, example_fold


class Clock:
    """Time that passes in items."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Ranks(Process):
    """Rank 0 of two: notes what it broadcasts."""

    world_size: int = 2
    sent: list[tuple[int, ...]] = field(default_factory=list)

    def broadcast_numbers(self, *numbers: int) -> list[int]:
        self.sent.append(numbers)
        return list(numbers)


@dataclass(frozen=True)
class Follower(Process):
    """Another rank: receives what rank 0 sent."""

    rank: int = 1
    world_size: int = 2
    received: Iterator[tuple[int, ...]] = field(default_factory=lambda: iter(()))

    def broadcast_numbers(self, *numbers: int) -> list[int]:
        return list(next(self.received))


def consume(process: Process, n: int, seconds: float, clock: Clock, **options: Any) -> list[int]:
    """Items taken before the end or the cancellation; each takes some seconds."""
    taken = []
    try:
        for item in cancellable(range(n), process, clock=clock, **options):
            clock.now += seconds
            taken.append(item)
    except FoldCancelled:
        pass
    return taken


@pytest.mark.parametrize(("seconds", "at_most"), [(0.001, 1000), (0.3, 5), (4.0, 2)])
def test_ranks_agree_once_per_second_or_at_every_step(seconds: float, at_most: int) -> None:
    clock = Clock()
    process = Ranks()
    consume(process, 3000, seconds, clock)
    distances = [distance for _, distance in process.sent]
    assert distances[0] == 1
    assert max(distances) <= at_most
    assert distances[-1] == pytest.approx(max(1.0, 1.0 / seconds), rel=0.5)
    # Ten doublings, then about one per second.
    assert len(process.sent) <= 12 + 1.2 * clock.now


@pytest.mark.parametrize("seconds", [0.001, 0.3, 4.0])
def test_all_ranks_stop_before_the_same_step_within_five_seconds(seconds: float) -> None:
    clock, cancelled_at = Clock(), 100.0
    process = Ranks(should_stop=lambda: clock.now >= cancelled_at)
    taken = consume(process, 10**6, seconds, clock)
    assert cancelled_at <= clock.now <= cancelled_at + 5
    follower = Follower(received=iter(process.sent), should_stop=lambda: pytest.fail("rank 1"))
    # Its own clock has no say.
    assert consume(follower, 10**6, 0.0, Clock()) == taken


def test_a_rank_with_fewer_batches_takes_part_in_every_agreement() -> None:
    process = Ranks()
    consume(process, 5, 1.0, Clock())
    follower = Follower(received=iter(process.sent))
    assert consume(follower, 4, 1.0, Clock(), n_items=5) == [0, 1, 2, 3]
    assert not list(follower.received)


@pytest.mark.parametrize("normalisation", ["per_image", "global"])
@pytest.mark.parametrize("last", [1, 3, 6, 8, 11])
def test_one_process_asks_before_every_batch(last: int, normalisation: str) -> None:
    calls = 0

    def should_stop() -> bool:
        nonlocal calls
        calls += 1
        return calls >= last

    experiment = example_experiment("test_vit", {"normalisation": normalisation}, epochs=9)
    with pytest.raises(FoldCancelled):
        train_fold(experiment, example_fold(), 0, Process(should_stop=should_stop))
    assert calls == last
