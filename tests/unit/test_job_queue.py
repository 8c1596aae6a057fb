"""The queue of folds without Ray: who gets which fold, and what a loss costs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hms_ray.config.experiment import Experiment
from hms_ray.dataset.prepare import Prepared
from hms_ray.distributed.fold_losses import NODE_NOTICED_S
from hms_ray.distributed.job import FoldEnd, Job
from hms_ray.distributed.job_queue import RESUBMITTED_S, JobQueue
from hms_ray.distributed.submissions import NOT_SEEN_S
from hms_ray.errors import FoldCancelled, TrainingError
from hms_ray.experiment.fold_task import FoldTask, run_task
from hms_ray.storage.run_log import WorkerLogs
from hms_ray.train.pulse import RankPulse
from tests.refused import refusal

HERE = Path("results")
TRAINED, CANCELLED = FoldEnd("trained"), FoldEnd("cancelled")
DIVERGED = FoldEnd("failed", TrainingError("a loss must be finite"))


def job(name: str, fold: int, key: str | None = None) -> Job:
    prepared = Prepared(HERE / "rows.parquet", {}, "", "", 3)
    task = FoldTask(Experiment(name=name), fold, key or f"{name}{fold}", prepared, HERE, {})
    return Job(task, print, run_task, WorkerLogs(HERE))


def jobs(name: str, n: int = 3) -> list[Job]:
    return [job(name, fold) for fold in range(n)]


class Group:
    """A worker group that a test leads step by step."""

    def __init__(self, queue: JobQueue, name: str, n_ranks: int = 1, node: str = "") -> None:
        self.queue, self.name, self.n_ranks, self.node = queue, name, n_ranks, node or name
        self.sit()

    def sit(self) -> None:
        self.seat, self.place = self.queue.sit(self.name, self.n_ranks), 0

    def take(self) -> str | None:
        """Key of the job that all ranks get, ``stop``, or None."""
        taken = {
            found.key if isinstance(found, Job) else found
            for rank in range(self.n_ranks)
            for found in [self.queue.take(self.seat, rank, self.place, self.node)]
        }
        (found,) = taken
        return found

    def done(self, end: FoldEnd = TRAINED) -> None:
        for rank in range(self.n_ranks):
            self.queue.done(self.seat, rank, self.place, end)
        for rank in range(self.n_ranks):
            assert self.queue.verdict(self.seat, rank, self.place) == "continue"
        self.place += 1


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> JobQueue:
    return JobQueue(clock=clock, wall=clock)


def raised(queue: JobQueue, submission: int, index: int) -> Exception | None:
    assert queue.ended(submission, index)
    return queue.end(submission, index)


def test_a_group_trains_the_folds_of_a_trial_in_order(queue: JobQueue) -> None:
    submission = queue.submit(jobs("a"))
    group = Group(queue, "g", n_ranks=2)
    for fold in range(3):
        assert not queue.ended(submission, fold)
        assert group.take() == f"a{fold}"
        group.done()
        assert raised(queue, submission, fold) is None
    assert group.take() is None


def test_free_groups_go_to_trials_without_a_fold_in_training_first(queue: JobQueue) -> None:
    for name in "ab":
        queue.submit(jobs(name, 2))
    groups = [Group(queue, str(number)) for number in range(5)]
    assert [group.take() for group in groups] == ["a0", "b0", "a1", "b1", None]


def test_a_fold_after_an_undecided_one_is_trained_only_by_a_group_that_would_idle(
    queue: JobQueue,
) -> None:
    first = queue.submit(jobs("a"), decides=True)
    group, other = Group(queue, "g"), Group(queue, "h")
    assert group.take() == "a0"
    group.done()
    queue.submit(jobs("b"), decides=True)
    assert group.take() == "b0"
    assert other.take() == "a1"
    other.done()
    queue.decided(first, 0)
    assert Group(queue, "i").take() == "a2", "b1 would be for nothing if b0 stops its trial"
    queue.decided(first, 1)
    assert other.take() == "b1"


def test_a_decided_trial_is_next_before_younger_ones(queue: JobQueue) -> None:
    first = queue.submit(jobs("a"), decides=True)
    group = Group(queue, "g")
    group.take()
    group.done()
    queue.decided(first, 0)
    queue.submit(jobs("b"), decides=True)
    assert group.take() == "a1"


def test_tasks_of_the_same_fold_are_trained_one_after_the_other(queue: JobQueue) -> None:
    queue.submit([job("whole", 0), job("first stage", 0), job("whole", 1)])
    group, other, third = (Group(queue, name) for name in "ghi")
    assert [group.take(), other.take(), third.take()] == ["whole0", "whole1", None]
    group.done()
    assert third.take() == "first stage0"


def test_ranks_take_the_same_jobs_at_their_own_pace(queue: JobQueue) -> None:
    queue.submit(jobs("a"))
    seat = queue.sit("g", 2)
    assert queue.take(seat, 1, 0).key == "a0"
    queue.done(seat, 0, 0, TRAINED)
    assert queue.take(seat, 0, 1).key == "a1"
    assert queue.take(seat, 0, 0).key == "a0", "the slower rank has not taken it"
    queue.done(seat, 1, 0, TRAINED)
    assert queue.take(seat, 1, 1).key == "a1"
    assert queue.take(seat, 1, 2) is None


def test_a_fold_that_several_want_is_trained_once(queue: JobQueue) -> None:
    first = queue.submit(jobs("a", 1), trial=1)
    second = queue.submit([job("b", 0, key="a0")], trial=2)
    group = Group(queue, "g")
    assert group.take() == "a0"
    assert Group(queue, "h").take() is None
    group.done()
    assert raised(queue, first, 0) is None
    assert raised(queue, second, 0) is None


def test_a_trial_whose_process_died_joins_the_training_that_goes_on(queue: JobQueue) -> None:
    former = queue.submit(jobs("a"), trial=4)
    group, other = Group(queue, "g"), Group(queue, "h")
    group.take()
    again = queue.submit(jobs("a"), trial=4)
    with pytest.raises(KeyError):
        queue.ended(former, 0)
    assert queue.to_cancel(group.seat) == -1
    assert other.take() == "a1"
    group.done()
    assert raised(queue, again, 0) is None


def test_folds_of_a_trial_that_never_came_back_are_cancelled(queue: JobQueue, clock: Clock) -> None:
    queue.submit(jobs("a"), trial=4)
    kept = queue.submit(jobs("b"), trial=5)
    group = Group(queue, "g")
    group.take()
    clock.now += NOT_SEEN_S + 1
    assert not queue.ended(kept, 0)
    assert queue.status().n_waiting == 3
    assert queue.to_cancel(group.seat) == 0
    group.done(CANCELLED)
    assert group.take() == "b0"


def test_a_wall_clock_that_is_set_forward_loses_no_caller(clock: Clock) -> None:
    queue = JobQueue(clock=clock, wall=lambda: clock.now * 1e6)
    submission = queue.submit(jobs("a"))
    clock.now += NOT_SEEN_S - 1
    assert queue.status().n_waiting == 3
    assert not queue.ended(submission, 0)


def test_closing_cancels_what_no_other_submission_wants(queue: JobQueue) -> None:
    stopped, kept = queue.submit(jobs("a")), queue.submit([job("a", 1)])
    groups = [Group(queue, name) for name in "gh"]
    assert [group.take() for group in groups] == ["a0", "a1"]
    queue.close(stopped)
    assert [queue.to_cancel(group.seat) for group in groups] == [0, -1]
    groups[1].done()
    assert raised(queue, kept, 0) is None
    groups[0].done(CANCELLED)
    assert groups[0].take() is None


def test_a_fold_submitted_again_while_it_is_cancelled_is_trained_again(queue: JobQueue) -> None:
    former = queue.submit(jobs("a", 1))
    group = Group(queue, "g")
    group.take()
    queue.close(former)
    new = job("b", 0, key="a0")
    again = queue.submit([new])
    group.done(CANCELLED)
    assert not queue.ended(again, 0)
    assert queue.take(group.seat, 0, group.place) is new, "the former report is not wanted"
    group.done()
    assert raised(queue, again, 0) is None


def test_cancelling_a_trial_ends_its_folds_alone(queue: JobQueue) -> None:
    first, second = queue.submit(jobs("a"), trial=1), queue.submit(jobs("b"), trial=2)
    group = Group(queue, "g")
    assert group.take() == "a0"
    queue.cancel(1)
    assert queue.to_cancel(group.seat) == 0
    assert all(isinstance(raised(queue, first, fold), FoldCancelled) for fold in range(3))
    group.done(CANCELLED)
    assert group.take() == "b0"
    assert queue.to_cancel(group.seat) == 0, "of the former job"
    assert not queue.ended(second, 0)


def test_an_error_of_all_ranks_ends_the_fold_and_not_the_group(queue: JobQueue) -> None:
    submission = queue.submit(jobs("a"))
    group = Group(queue, "g", n_ranks=2)
    group.take()
    group.done(DIVERGED)
    assert raised(queue, submission, 0) is DIVERGED.error
    assert group.take() == "a1"


@pytest.mark.parametrize(
    "ends",
    [
        {1: DIVERGED},
        {0: DIVERGED, 1: FoldEnd("failed", TrainingError("another one"))},
        {rank: FoldEnd("failed", DIVERGED.error, in_step=False) for rank in range(2)},
    ],
    ids=["one rank", "different errors", "errors of an operation"],
)
def test_ranks_that_may_be_out_of_step_restart_their_group(
    queue: JobQueue, ends: dict[int, FoldEnd]
) -> None:
    submission = queue.submit(jobs("a"))
    group = Group(queue, "g", n_ranks=2)
    group.take()
    for rank, end in ends.items():
        queue.done(group.seat, rank, 0, end)
    verdicts = {queue.verdict(group.seat, rank, 0, final=True) for rank in ends}
    assert verdicts == {"restart"}
    assert isinstance(raised(queue, submission, 0), TrainingError), "it would fail again"


def test_an_unexpected_error_fails_its_fold_at_once_and_restarts_the_group(
    queue: JobQueue,
) -> None:
    submission = queue.submit(jobs("a"))
    odd = FoldEnd("failed", TrainingError("odd"), in_step=False, reusable=False)
    for n_ranks in (1, 2):
        group = Group(queue, f"g{n_ranks}", n_ranks)
        assert group.take() == f"a{n_ranks - 1}"
        queue.done(group.seat, n_ranks - 1, 0, odd)
        assert queue.verdict(group.seat, n_ranks - 1, 0) == "restart", "the other rank waits"
        assert raised(queue, submission, n_ranks - 1) is odd.error
        group.sit()
    assert queue.status().losses == ()
    assert group.take() == "a2"


@pytest.mark.parametrize("lost", [True, False])
def test_an_error_that_may_come_from_the_loss_of_another_rank_waits_for_it(
    queue: JobQueue, lost: bool
) -> None:
    submission = queue.submit(jobs("a", 1))
    odd = FoldEnd("failed", TrainingError("odd"), in_step=False, own=False, reusable=False)
    group = Group(queue, "g", n_ranks=2)
    group.take()
    queue.done(group.seat, 0, 0, odd)
    assert queue.verdict(group.seat, 0, 0) is None
    if lost:
        queue.lost("g", "ActorDiedError")
        assert queue.verdict(group.seat, 0, 0) == "restart"
        assert queue.status().losses == ("a fold 0 was lost by g: ActorDiedError",)
        group.sit()
        assert group.take() == "a0"
    else:
        assert queue.verdict(group.seat, 0, 0, final=True) == "restart"
        assert raised(queue, submission, 0) is odd.error


def test_one_rank_waits_for_the_others_before_its_verdict(queue: JobQueue) -> None:
    queue.submit(jobs("a"))
    group = Group(queue, "g", n_ranks=2)
    group.take()
    queue.done(group.seat, 0, 0, DIVERGED)
    assert queue.verdict(group.seat, 0, 0) is None
    queue.done(group.seat, 1, 0, DIVERGED)
    assert queue.verdict(group.seat, 0, 0) == "continue"


def lose(group: Group, queue: JobQueue, how: str) -> None:
    if how == "reported":
        queue.done(group.seat, 0, group.place, FoldEnd("broken", reason="RuntimeError: odd"))
        assert queue.verdict(group.seat, 0, group.place) == "restart"
    elif how == "noticed":
        queue.lost(group.name, "RuntimeError: odd")
    group.sit()


@pytest.mark.parametrize("how", ["reported", "noticed", "restarted"])
def test_a_lost_fold_is_trained_again_once(queue: JobQueue, clock: Clock, how: str) -> None:
    submission = queue.submit(jobs("a", 2))
    group = Group(queue, "g")
    assert group.take() == "a0"
    lose(group, queue, how)
    (text,) = queue.status().losses
    assert text.startswith("a fold 0 was lost by g: ")
    assert queue.status().losses == ()
    assert group.take() == "a0"
    lose(group, queue, how)
    clock.now += NODE_NOTICED_S
    assert group.take() == "a1", "the trial may fail, the group goes on"
    got = "its workers were lost" if how == "restarted" else "RuntimeError: odd"
    with refusal(TrainingError, "lost 2 times", got=got, where="fold 0 of a", fix="Debug"):
        raise raised(queue, submission, 0)  # type: ignore[misc]


def beat(queue: JobQueue, group: Group, rank: int, position: int, age_s: float = 0.0) -> str | None:
    pulse = RankPulse(group.place, position, age_s, f"log-{rank}")
    return queue.pulse(group.seat, rank, pulse)


@pytest.mark.parametrize(
    ("positions", "blamed"),
    [((7, 6), ", rank 1 is behind the others; its stacks are in log-1"), ((7, 7), "; its stacks")],
)
def test_a_group_without_a_step_is_a_loss_that_counts(
    clock: Clock, positions: tuple[int, int], blamed: str
) -> None:
    queue = JobQueue(clock=clock, stall_timeout_s=60)
    submission = queue.submit(jobs("a", 1))
    group = Group(queue, "g", n_ranks=2)
    for n_stalls in (1, 2):
        assert group.take() == "a0"
        for rank in (0, 1):
            assert beat(queue, group, rank, positions[rank], age_s=2.0) == ""
        clock.now += 57.9
        assert queue.status().losses == ()
        clock.now += 0.1
        (text,) = queue.status().losses
        assert text.startswith(f"a fold 0 was lost by g: no step for 60 s{blamed}")
        reasons = {beat(queue, group, rank, positions[rank]) for rank in (0, 1)}
        assert len(reasons) == 1, "all ranks end"
        assert str(reasons.pop()) in text
        queue.lost("g", "ActorDiedError")
        assert queue.status().losses == (), "it is one loss"
        if n_stalls == 1:
            group.sit()
    group.sit()
    assert group.take() is None
    with refusal(TrainingError, "lost 2 times", got="no step", where="fold 0 of a", fix="Debug"):
        raise raised(queue, submission, 0)  # type: ignore[misc]


def test_a_group_does_not_stall_while_a_rank_loads_or_trains(clock: Clock) -> None:
    queue = JobQueue(clock=clock, stall_timeout_s=60)
    submission = queue.submit(jobs("a", 2))

    def losses() -> tuple[str, ...]:
        assert not queue.ended(submission, 1), "its caller is alive"
        return queue.status().losses

    group = Group(queue, "g", n_ranks=2)
    assert group.take() == "a0"
    beat(queue, group, 0, 3)
    clock.now += 100
    assert losses() == (), "rank 1 loads"
    for position in range(4, 8):
        clock.now += 50
        beat(queue, group, 1, position)
        assert losses() == ()
    group.done()
    clock.now += 100
    assert losses() == (), "idle"
    assert group.take() == "a1"
    assert losses() == (), "pulses of the former fold"
    assert queue.pulse(99, 0, RankPulse(0, 0, 1e6, "log")) is None


def test_a_rank_that_has_ended_does_not_keep_its_group_from_stalling(clock: Clock) -> None:
    queue = JobQueue(clock=clock, stall_timeout_s=60)
    queue.submit(jobs("a", 1))
    group = Group(queue, "g", n_ranks=2)
    group.take()
    beat(queue, group, 0, 5)
    clock.now += 30
    beat(queue, group, 1, 6)
    queue.done(group.seat, 1, 0, TRAINED)
    clock.now += 30
    (text,) = queue.status().losses
    assert text.endswith("no step for 60 s; its stacks are in log-0")


def test_a_moved_fold_is_no_loss_that_counts(clock: Clock) -> None:
    queue = JobQueue(max_failures=0, clock=clock)
    submission = queue.submit(jobs("a", 1))
    group = Group(queue, "g", node="spot")
    assert queue.nodes(group.seat) == frozenset()
    group.take()
    assert queue.nodes(group.seat) == {"spot"}
    queue.done(group.seat, 0, 0, FoldEnd("moved", reason="its machine is about to leave"))
    assert queue.verdict(group.seat, 0, 0) == "restart"
    assert queue.nodes(group.seat) == frozenset(), "the seat is left"
    assert queue.status().losses[0].endswith("g: its machine is about to leave")
    group.sit()
    assert group.take() == "a0"
    group.done()
    assert raised(queue, submission, 0) is None


def test_a_late_report_of_one_rank_is_no_loss_of_the_next_fold(clock: Clock) -> None:
    queue = JobQueue(max_failures=0, clock=clock)
    submission = queue.submit(jobs("a", 2))
    group = Group(queue, "g", n_ranks=2)
    group.take()
    queue.done(group.seat, 0, 0, TRAINED)
    assert queue.take(group.seat, 0, 1).key == "a1"
    queue.done(group.seat, 1, 0, FoldEnd("broken", reason="RuntimeError: odd"))
    assert {queue.verdict(group.seat, rank, 0) for rank in range(2)} == {"restart"}
    assert raised(queue, submission, 0) is None
    group.sit()
    clock.now += NODE_NOTICED_S
    assert group.take() == "a1"


def test_a_group_whose_ranks_did_not_end_alike_does_not_lose_its_next_fold(clock: Clock) -> None:
    queue = JobQueue(max_failures=0, clock=clock)
    queue.submit(jobs("a", 2))
    group = Group(queue, "g", n_ranks=2)
    group.take()
    queue.done(group.seat, 0, 0, TRAINED)
    assert queue.take(group.seat, 0, 1).key == "a1"
    queue.done(group.seat, 1, 0, DIVERGED)
    assert queue.verdict(group.seat, 1, 0) == "restart"
    group.sit()
    clock.now += NODE_NOTICED_S
    assert group.take() == "a1"


def test_losses_with_their_machine_do_not_count(clock: Clock) -> None:
    gone: set[str] = set()
    queue = JobQueue(lost_nodes=lambda nodes: nodes & gone, clock=clock)
    queue.submit(jobs("a", 1))
    for number in range(6):
        group = Group(queue, f"g{number}")
        assert group.take() == "a0"
        gone.add(group.node)
        queue.finished(group.name, "the node died")


def test_a_loss_is_not_judged_before_its_machine_is_known_to_live(clock: Clock) -> None:
    gone: set[str] = set()
    queue = JobQueue(lost_nodes=lambda nodes: nodes & gone, clock=clock)
    queue.submit(jobs("a", 1))
    for number in range(2):
        Group(queue, f"g{number}").take()
        queue.finished(f"g{number}", "killed")
    third = Group(queue, "g2")
    assert third.take() is None
    clock.now += NODE_NOTICED_S - 1
    gone.add("g1")
    assert third.take() == "a0"


def test_a_lost_fold_that_nobody_wants_is_dropped(queue: JobQueue) -> None:
    submission = queue.submit(jobs("a", 1))
    group = Group(queue, "g")
    group.take()
    queue.close(submission)
    queue.lost("g", "killed")
    assert queue.status().n_waiting == 0
    assert queue.status().losses == ()


def test_a_released_group_ends_unless_it_trains(queue: JobQueue) -> None:
    busy, idle = Group(queue, "g"), Group(queue, "h")
    queue.submit(jobs("a", 1))
    busy.take()
    queue.release("g")
    queue.release("h")
    queue.submit(jobs("b", 1))
    assert idle.take() == "stop"
    busy.done()
    assert busy.take() == "b0"


def test_groups_stop_after_the_fold_in_training(queue: JobQueue) -> None:
    queue.submit(jobs("a"))
    group = Group(queue, "g", n_ranks=2)
    group.take()
    queue.stop()
    group.done()
    assert group.take() == "stop"


def test_with_one_fold_each_a_group_stops_and_stored_folds_need_none(clock: Clock) -> None:
    stored: Callable[[Job], bool] = lambda job: job.key == "a1"  # noqa: E731
    queue = JobQueue(one_each=True, stored=stored, clock=clock)
    submission = queue.submit(jobs("a"))
    assert queue.status().n_waiting == 2
    assert raised(queue, submission, 1) is None
    group = Group(queue, "g")
    assert group.take() == "a0"
    group.done()
    assert group.take() == "stop"
    assert Group(queue, "h").take() == "a2"


def test_status_and_times_of_groups(queue: JobQueue, clock: Clock) -> None:
    queue.requested("g")
    clock.now += 10
    group = Group(queue, "g")
    clock.now += 3
    assert queue.status().idle_s == {"g": 3}
    queue.submit(jobs("a", 2))
    assert queue.status().n_waiting == 2
    group.take()
    clock.now += 5
    assert queue.status().idle_s == {"g": None}
    assert queue.times()[0].busy_s == 5
    group.done()
    clock.now += 1
    lose(group, queue, "noticed")
    group.take()
    clock.now += 2
    queue.finished("g", "killed")
    (times,) = queue.times()
    found: dict[str, Any] = vars(times)
    assert found == {
        "group": "g",
        "requested": 1000,
        "started": 1010,
        "first_job": 1013,
        "ended": 1021,
        "busy_s": 7,
        "n_folds": 2,
        "n_restarts": 1,
    }
    assert times.startup_s == 10


def test_waiting_folds_fail_when_no_group_can_start(queue: JobQueue) -> None:
    submission = queue.submit(jobs("a"))
    group = Group(queue, "g")
    group.take()
    queue.fail_waiting(TrainingError("a worker group must start"))
    assert not queue.ended(submission, 0)
    assert isinstance(raised(queue, submission, 1), TrainingError)


def test_a_restarted_queue_hears_of_the_end_of_groups_that_it_does_not_know(
    queue: JobQueue,
) -> None:
    queue.finished("g", "killed")
    assert queue.times() == []


def test_numbers_of_a_lost_queue_are_unknown_to_the_next_one() -> None:
    first, second = JobQueue(life=1_000), JobQueue(life=2_000)
    submission, group = first.submit(jobs("a")), Group(first, "g")
    second.submit(jobs("b"))
    Group(second, "h")
    with pytest.raises(KeyError):
        second.ended(submission, 0)
    assert second.take(group.seat, 0, 0) == "stop"
    assert second.status().life == 2_000


def test_after_a_loss_of_the_queue_a_fold_that_nobody_wants_is_cancelled(clock: Clock) -> None:
    lost = JobQueue(life=1_000, clock=clock)
    lost.submit(jobs("a", 2), trial=3)
    groups = [Group(lost, name) for name in "gh"]
    assert [group.take() for group in groups] == ["a0", "a1"]

    queue = JobQueue(life=2_000, clock=clock)

    def to_cancel() -> list[int]:
        return [queue.to_cancel(g.seat, (0, f"a{n}")) for n, g in enumerate(groups)]

    clock.now += RESUBMITTED_S - 1
    assert to_cancel() == [-1, -1], "its caller may still submit it again"
    queue.submit(jobs("a", 1), trial=3)
    clock.now += 1
    assert to_cancel() == [-1, 0]
    queue.cancel(3)
    assert to_cancel() == [0, 0]
    assert queue.to_cancel(groups[0].seat) == -1, "it trains nothing"


def test_times_of_groups_outlive_the_queue(clock: Clock) -> None:
    def lives(*, restored_late: bool) -> dict[str, Any]:
        clock.now = 1000
        queue = JobQueue(clock=clock, wall=clock)
        for name in "gh":
            queue.requested(name)
        clock.now += 10
        group = Group(queue, "g")
        queue.submit(jobs("a"))
        group.take()
        clock.now += 5
        times = list(queue.status().times)
        assert [one.group for one in times] == ["g", "h"]

        queue = JobQueue(clock=clock, wall=clock)
        clock.now += 7
        if not restored_late:
            queue.restore(times)
        for name in "gh":
            Group(queue, name)
        if restored_late:
            queue.restore(times)
        ended = queue.finished("g", "killed")
        assert [one.group for one in queue.status().times] == ["h"]
        assert ended is not None
        return {"g": vars(ended), "h": vars(queue.status().times[0])}

    expected = {
        "g": {
            "group": "g",
            "requested": 1000,
            "started": 1010,
            "first_job": 1010,
            "ended": 1022,
            "busy_s": 5,
            "n_folds": 1,
            "n_restarts": 1,
        },
        "h": {
            "group": "h",
            "requested": 1000,
            "started": 1022,
            "first_job": None,
            "ended": None,
            "busy_s": 0,
            "n_folds": 0,
            "n_restarts": 0,
        },
    }
    assert lives(restored_late=False) == lives(restored_late=True) == expected


def test_only_processes_of_trials_lost_without_their_machine_are_counted(clock: Clock) -> None:
    gone = {"lost"}
    queue = JobQueue(lost_nodes=lambda nodes: nodes & gone, clock=clock)
    starts = [queue.started("7", node) for node in ("lost", "a", "lost", "b", "lost")]
    assert starts == [0, 0, 1, 1, 2]
    assert queue.started("8", "a") == 0


@pytest.mark.parametrize("change", ["trained", "cancelled", "unseen", "poison"])
def test_changes_are_announced_to_who_waits(clock: Clock, change: str) -> None:
    n_changes = 0

    def on_change() -> None:
        nonlocal n_changes
        n_changes += 1

    queue = JobQueue(max_failures=0, on_change=on_change, clock=clock)
    queue.submit(jobs("a", 1), trial=1)
    group = Group(queue, "g")
    group.take()
    assert n_changes == 0
    if change == "trained":
        group.done()
    elif change == "cancelled":
        queue.cancel(1)
    elif change == "unseen":
        clock.now += NOT_SEEN_S + 1
        queue.status()
    else:
        queue.lost("g", "killed")
        assert n_changes == 0
        clock.now += NODE_NOTICED_S
        queue.status()
    assert n_changes == 1
