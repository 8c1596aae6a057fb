"""The queue of folds to train: trials submit folds, worker groups take them one by one.

Plain state without Ray or waiting: every call answers at once (``queue_actor`` waits). A
*submission* is the folds that one caller wants, in order. A fold is one entry however many
submissions want it, found by its cache key, so that a caller that died and submits again joins
the training in progress. A *seat* is one start of a worker group: a restarted group takes a new
one, and the fold of its former seat is lost and waits again.

Losses of a fold whose machines stayed alive are counted: after ``max_failures`` of them, one
more fails the fold. Machines that were lost or drained do not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

from hms_ray.distributed.fold_losses import Loss, LossLimit, Nodes
from hms_ray.distributed.group_ledger import GroupLedger
from hms_ray.distributed.job import FoldEnd, GroupTimes, Job, QueueStatus
from hms_ray.distributed.seat import Seat, Verdict
from hms_ray.distributed.submissions import Fold, Submissions
from hms_ray.errors import HmsRayError
from hms_ray.train.pulse import RankPulse

Stop = Literal["stop"]

RESUBMITTED_S: Final = 15.0
"""After a restart of the queue, callers submit their folds again within this time."""


class JobQueue:
    """Folds that wait and folds in training; see the module.

    Args:
        max_failures: see ``ResourcesConfig``.
        one_each: whether a group ends after one fold.
        stall_timeout_s: likewise; None: groups never stall.
        stored: whether a fold is in the store, so that it needs no group.
        lost_nodes: which of some machines are lost or being drained, by Ray's ids.
        on_change: called when a fold ends or is cancelled.
        life: larger than the number of calls of an earlier queue of the same run, so that
            numbers of its submissions and seats are unknown here.
        clock: monotonic, in seconds.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        max_failures: int = 1,
        *,
        one_each: bool = False,
        stall_timeout_s: float | None = None,
        stored: Callable[[Job], bool] = lambda job: False,
        lost_nodes: Callable[[Nodes], Nodes] = lambda nodes: frozenset(),
        on_change: Callable[[], None] = lambda: None,
        life: int = 0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._one_each, self._stored, self._lost_nodes = one_each, stored, lost_nodes
        self._on_change, self._clock = on_change, clock
        self._life, self._started, self._n_seats = life, clock(), life
        self._limit = LossLimit(max_failures, lost_nodes, clock)
        self._submissions = Submissions(life, self._cancel_training, on_change, clock)
        self._folds = self._submissions.folds
        self._seats: dict[int, Seat] = {}
        self._stall_timeout_s, self._stalls = stall_timeout_s, dict[int, str]()
        self._ledger = GroupLedger(wall)
        self._starts: dict[str, list[str]] = {}
        self._losses: list[str] = []
        self._stopping = False

    # For the callers that want folds.

    def submit(
        self, jobs: Sequence[Job], *, trial: int | None = None, decides: bool = False
    ) -> int:
        """Adds folds to train, and returns the number of the submission.

        An earlier submission of the same trial is that of a process that died.

        Args:
            jobs: in order. Those with the same fold number are trained one after the other,
                since one may store what the next one needs.
            trial: number that ``cancel`` knows the submission by.
            decides: whether the caller calls ``decided`` after each fold.
        """
        return self._submissions.add(jobs, trial, decides)

    def ended(self, number: int, index: int) -> bool:
        """Whether a fold of a submission has ended in any way; the caller is alive.

        Raises:
            KeyError: if the submission is unknown.
        """
        return index in self._submissions.of_caller(number).ends

    def end(self, number: int, index: int) -> Exception | None:
        """How an ended fold ended; None: its result is in the store."""
        return self._submissions.of_caller(number).ends[index]

    def decided(self, number: int, index: int) -> None:
        """The caller wants the folds after this one; nothing if the submission is unknown."""
        self._submissions.decided(number, index)

    def close(self, number: int) -> None:
        """Ends a submission; its folds that no other one wants are cancelled."""
        self._submissions.close(number)

    def cancel(self, trial: int) -> None:
        """Cancels the folds of a trial; its caller sees them end with ``FoldCancelled``."""
        self._submissions.cancel(trial, f"trial {trial:04d} was stopped")

    def fail_waiting(self, error: HmsRayError) -> None:
        """Ends all waiting folds with an error, since no worker group can be started."""
        for key in [key for key, fold in self._folds.items() if fold.seat is None]:
            self._submissions.resolve(key, error)

    def _cancel_training(self, fold: Fold) -> None:
        assert fold.seat is not None
        self._seats[fold.seat].cancel()
        self._on_change()

    # For the processes of trials.

    def started(self, trial: str, node: str) -> int:
        """Notes that a process of a trial starts on a machine.

        Returns:
            How many earlier ones were lost while their machines stayed alive.
        """
        earlier = list(self._starts.get(trial, []))
        self._starts.setdefault(trial, []).append(node)
        gone = self._lost_nodes(frozenset(earlier)) if earlier else frozenset()
        return sum(node not in gone for node in earlier)

    # For the workers.

    def sit(self, group: str, n_ranks: int) -> int:
        """Workers of a group have started; returns the number of their seat."""
        self.lost(group, "its workers were lost")
        self._n_seats += 1
        self._seats[self._n_seats] = Seat(group, n_ranks, self._clock())
        self._ledger.started(group)
        return self._n_seats

    def take(self, number: int, rank: int, place: int, node: str = "") -> Job | Stop | None:
        """The job at a place of a seat's sequence; None if there is none yet.

        Each rank requests its jobs itself, and all get the same ones: the first request for a new
        place decides which job it is.
        """
        seat = self._seats.get(number)
        if seat is None:
            return "stop"
        job = seat.request(rank, place, node)
        if job is not None or seat.busy is not None:
            return job
        if self._stopping or seat.released or (self._one_each and seat.n_jobs):
            # For all ranks: a fold that is submitted now is not for this group.
            seat.released = True
            return "stop"
        key = next(self._next_keys(), None)
        return None if key is None else self._start(number, key)

    def _start(self, number: int, key: str) -> Job:
        fold, seat = self._folds[key], self._seats[number]
        # Who submitted it first may not want it any more.
        submission, index = next(self._submissions.wanting(key))
        fold.job, fold.seat = submission.jobs[index], number
        seat.start(fold.job, self._clock())
        self._ledger.took_fold(seat.group)
        return fold.job

    def done(self, number: int, rank: int, place: int, end: FoldEnd) -> None:
        """A rank has ended the job at a place of its seat; see ``verdict``."""
        seat = self._seats.get(number)
        if seat is None:
            return
        if end.kind in ("broken", "moved"):
            # The other ranks may train the next fold already, which is not at fault.
            counts = end.kind == "broken" and seat.trains(place)
            self._leave(number, end.reason, alive=True, counts=counts)
        elif seat.report(rank, place, end):
            self._finish(seat, place)

    def verdict(self, number: int, rank: int, place: int, *, final: bool = False) -> Verdict | None:
        """Whether a rank continues after its job, or its group must be restarted.

        Ranks that did not end alike may be out of step in their next collective.

        Args:
            number: of the seat.
            rank: that has reported its end with ``done``.
            place: of the job.
            final: do not wait for the other ranks any longer.

        Returns:
            None until it is known.
        """
        seat = self._seats.get(number)
        if seat is None:
            return "restart"
        verdict = seat.verdict(rank, place, final=final)
        if verdict == "restart":
            if seat.trains(place):
                self._finish(seat, place)
            # All other ranks have to restart too; the fold that they may train is not at fault.
            self._leave(number, "its ranks did not end alike", alive=True, counts=False)
        return verdict

    def _finish(self, seat: Seat, place: int) -> None:
        """Ends the fold of a seat by what its ranks have reported."""
        key, ends = self._free(seat).key, seat.ends(place)
        errors = [end.error for end in ends if end.error is not None]
        trained = ends[0].kind == "trained"
        if trained or errors:
            self._submissions.resolve(key, None if trained else errors[0])
        else:
            # It may have been submitted again while its cancelled training came to its end.
            self._submissions.wait_again(key)

    def _free(self, seat: Seat) -> Job:
        job, seconds = seat.free(self._clock())
        self._ledger.ended_fold(seat.group, seconds)
        return job

    def pulse(self, number: int, rank: int, pulse: RankPulse) -> str | None:
        """Notes how far a rank of a seat is.

        Returns:
            Why its process has to end; empty: it continues; None: the seat is unknown.
        """
        if number in self._stalls:
            return self._stalls[number]
        if number not in self._seats:
            return None
        self._seats[number].pulse(rank, pulse, self._clock())
        return ""

    def _end_stalled(self) -> None:
        """Takes the folds from seats whose ranks hang."""
        if self._stall_timeout_s is None:
            return
        for number, seat in list(self._seats.items()):
            if (text := seat.stall(self._stall_timeout_s, self._clock())) is not None:
                self._stalls[number] = text
                self._leave(number, text, alive=True)

    def nodes(self, number: int) -> Nodes:
        """The machines of a seat, by Ray's ids; none if it is unknown."""
        seat = self._seats.get(number)
        return frozenset() if seat is None else frozenset(seat.nodes)

    def to_cancel(self, number: int, training: tuple[int, str] | None = None) -> int:
        """Place of the job that a seat's rank 0 must end; -1: none.

        Args:
            number: of the seat.
            training: place and cache key of the job in training. If a restarted queue does not
                know the seat, a fold that no caller submits again is cancelled.
        """
        seat = self._seats.get(number)
        if seat is not None:
            return seat.cancelled
        unknown = training is not None and training[1] not in self._folds
        if training is None or not unknown or self._clock() - self._started < RESUBMITTED_S:
            return -1
        return training[0]

    # For the supervisor of worker groups.

    def requested(self, group: str) -> None:
        """A group is being started."""
        self._ledger.requested(group)

    def restore(self, times: Sequence[GroupTimes]) -> None:
        """Continues the times that an earlier queue of this run had when it was lost."""
        self._ledger.restore(times)

    def lost(self, group: str, reason: str) -> None:
        """The workers of a group are gone; its fold waits again."""
        for number in [n for n, seat in self._seats.items() if seat.group == group]:
            self._leave(number, reason, alive=False)

    def finished(self, group: str, reason: str) -> GroupTimes | None:
        """A group has ended for good; a fold that it trained is lost.

        Returns:
            Its times, unless a restarted queue does not know it.
        """
        self.lost(group, reason)
        return self._ledger.ended(group)

    def _leave(self, number: int, reason: str, *, alive: bool, counts: bool = True) -> None:
        seat = self._seats.pop(number)
        if seat.busy is None:
            return
        job = self._free(seat)
        fold = self._folds[job.key]
        if not self._submissions.wait_again(job.key):
            return
        if counts:
            fold.losses.append(Loss(self._clock(), frozenset(seat.nodes), reason, alive))
        trials = [s.trial for s, _ in self._submissions.wanting(job.key) if s.trial is not None]
        owner = f"trial {trials[0]:04d}" if trials else job.task.experiment.name
        self._losses.append(f"{owner} fold {job.task.fold} was lost by {seat.group}: {reason}")

    def release(self, group: str) -> None:
        """Ends a group, unless it trains."""
        for seat in self._seats.values():
            if seat.group == group and seat.busy is None:
                seat.released = True

    def stop(self) -> None:
        """Ends all groups, each after the fold that it trains."""
        self._stopping = True

    def status(self) -> QueueStatus:
        """See ``QueueStatus``."""
        now = self._clock()
        self._submissions.close_unseen()
        self._end_stalled()
        losses, self._losses = tuple(self._losses), []
        return QueueStatus(
            life=self._life,
            n_waiting=len(set(self._next_keys())),
            idle_s={
                seat.group: None if seat.busy is not None else now - seat.idle_since
                for seat in self._seats.values()
                if not seat.released
            },
            losses=losses,
            times=tuple(times for times in self.times() if times.ended is None),
        )

    def times(self) -> list[GroupTimes]:
        """Times of all groups, as of now."""
        now, seats = self._clock(), self._seats.values()
        return self._ledger.times({s.group: now - s.busy_since for s in seats if s.busy})

    # Which fold is next.

    def _next_keys(self) -> Iterator[str]:
        return self._submissions.next_keys(self._may_start)

    def _may_start(self, key: str) -> bool:
        """Whether a waiting fold is to be trained; ends it if it was lost too often."""
        fold = self._folds[key]
        if self._stored(fold.job):
            self._submissions.resolve(key, None)
        elif self._limit.allows(fold.losses):
            return True
        elif (failure := self._limit.failure(fold.job, fold.losses)) is not None:
            self._submissions.resolve(key, failure)
        return False
