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
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from hms_ray.distributed.job import FoldEnd, GroupTimes, Job
from hms_ray.errors import FoldCancelled, HmsRayError, TrainingError
from hms_ray.text import counted

Stop = Literal["stop"]
Verdict = Literal["continue", "restart"]
Nodes = frozenset[str]

NOT_SEEN_S: Final = 120.0
"""A submission whose caller has not called for so long has lost its process."""
NODE_NOTICED_S: Final = 15.0
"""Ray notices a lost machine within this time; until then a lost fold is not judged."""
_STOPPING: Final = "the run is being stopped"


@dataclass
class _Loss:
    at: float
    nodes: Nodes
    reason: str
    alive: bool
    """Whether a worker reported it itself, so that its machine was alive."""


@dataclass
class _Fold:
    """A fold to train, once for all submissions that want it."""

    job: Job
    seat: int | None = None
    losses: list[_Loss] = field(default_factory=list)


@dataclass
class _Submission:
    """The folds that one caller wants."""

    jobs: list[Job]
    trial: int | None
    decides: bool
    seen: float
    ends: dict[int, Exception | None] = field(default_factory=dict)
    n_decided: int = 0


@dataclass
class _Seat:
    """One start of a worker group."""

    group: str
    n_ranks: int
    idle_since: float
    nodes: set[str] = field(default_factory=set)
    jobs: dict[int, Job] = field(default_factory=dict)
    """Place in the seat's sequence -> job, until all ranks have taken a later one."""
    n_jobs: int = 0
    places: dict[int, int] = field(default_factory=dict)
    """Rank -> place of the job that it requested last."""
    ends: dict[int, dict[int, FoldEnd]] = field(default_factory=dict)
    """Place -> rank -> how it ended."""
    busy: str | None = None
    """Cache key of the fold in training."""
    busy_since: float = 0.0
    cancelled: int = -1
    """Place of the job to cancel."""
    released: bool = False


@dataclass(frozen=True)
class QueueStatus:
    """What the supervisor of worker groups has to know.

    Attributes:
        n_waiting: folds that free groups would get now.
        idle_s: group with workers -> seconds without a fold; None while it trains.
        losses: a text for every loss since the last call.
    """

    n_waiting: int
    idle_s: dict[str, float | None]
    losses: tuple[str, ...]


class JobQueue:
    """Folds that wait and folds in training; see the module.

    Args:
        max_failures: see ``ResourcesConfig``.
        one_each: whether a group ends after one fold.
        stored: whether a fold is in the store, so that it needs no group.
        lost_nodes: which of some machines are lost or being drained, by Ray's ids.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        max_failures: int = 1,
        *,
        one_each: bool = False,
        stored: Callable[[Job], bool] = lambda job: False,
        lost_nodes: Callable[[Nodes], Nodes] = lambda nodes: frozenset(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_failures, self._one_each = max_failures, one_each
        self._stored, self._lost_nodes, self._clock = stored, lost_nodes, clock
        self._folds: dict[str, _Fold] = {}
        self._submissions: dict[int, _Submission] = {}
        self._seats: dict[int, _Seat] = {}
        self._times: dict[str, GroupTimes] = {}
        self._losses: list[str] = []
        self._n_submissions = self._n_seats = 0
        self._stopping = self._all_cancelled = False

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
        former = [n for n, s in self._submissions.items() if trial is not None and s.trial == trial]
        self._n_submissions += 1
        submission = _Submission(list(jobs), trial, decides, self._clock())
        self._submissions[self._n_submissions] = submission
        for job in jobs:
            self._folds.setdefault(job.key, _Fold(job))
        for number in former:
            self.close(number)
        if self._all_cancelled:
            self._cancel(submission, _STOPPING)
        return self._n_submissions

    def ended(self, number: int, index: int) -> bool:
        """Whether a fold of a submission has ended in any way; the caller is alive.

        Raises:
            KeyError: if the submission is unknown.
        """
        submission = self._submissions[number]
        submission.seen = self._clock()
        return index in submission.ends

    def end(self, number: int, index: int) -> Exception | None:
        """How an ended fold ended; None: its result is in the store."""
        return self._submissions[number].ends[index]

    def decided(self, number: int, index: int) -> None:
        """The caller wants the folds after this one."""
        if number in self._submissions:
            submission = self._submissions[number]
            submission.seen, submission.n_decided = self._clock(), index + 1

    def close(self, number: int) -> None:
        """Ends a submission; its folds that no other one wants are cancelled."""
        submission = self._submissions.pop(number, None)
        if submission is not None:
            self._drop_unwanted(submission)

    def cancel(self, trial: int) -> None:
        """Cancels the folds of a trial; its caller sees them end with ``FoldCancelled``."""
        for submission in self._submissions.values():
            if submission.trial == trial:
                self._cancel(submission, f"trial {trial:04d} was stopped")

    def cancel_all(self) -> None:
        """Cancels all folds, those that are submitted later too."""
        self._all_cancelled = True
        for submission in self._submissions.values():
            self._cancel(submission, _STOPPING)

    def fail_waiting(self, error: HmsRayError) -> None:
        """Ends all waiting folds with an error, since no worker group can be started."""
        for key in [key for key, fold in self._folds.items() if fold.seat is None]:
            self._resolve(key, error)

    def _cancel(self, submission: _Submission, reason: str) -> None:
        for index in range(len(submission.jobs)):
            submission.ends.setdefault(index, FoldCancelled(reason))
        self._drop_unwanted(submission)

    def _drop_unwanted(self, submission: _Submission) -> None:
        for key in dict.fromkeys(job.key for job in submission.jobs):
            fold = self._folds.get(key)
            if fold is None or any(self._wanting(key)):
                continue
            if fold.seat is None:
                del self._folds[key]
            else:
                seat = self._seats[fold.seat]
                seat.cancelled = seat.n_jobs - 1

    def _wanting(self, key: str) -> Iterator[tuple[_Submission, int]]:
        """The submissions that still want a fold, and its place in each."""
        for submission in self._submissions.values():
            for index, job in enumerate(submission.jobs):
                if job.key == key and index not in submission.ends:
                    yield submission, index

    def _resolve(self, key: str, end: Exception | None) -> None:
        del self._folds[key]
        for submission, index in self._wanting(key):
            submission.ends[index] = end

    # For the workers.

    def sit(self, group: str, n_ranks: int) -> int:
        """Workers of a group have started; returns the number of their seat."""
        self.lost(group, "its workers were lost")
        self._n_seats += 1
        now = self._clock()
        self._seats[self._n_seats] = _Seat(group, n_ranks, now)
        times = self._times.setdefault(group, GroupTimes(group, now))
        if times.started is None:
            times.started = now
        else:
            times.n_restarts += 1
        return self._n_seats

    def take(self, number: int, rank: int, place: int, node: str = "") -> Job | Stop | None:
        """The job at a place of a seat's sequence; None if there is none yet.

        Each rank requests its jobs itself, and all get the same ones: the first request for a new
        place decides which job it is.
        """
        seat = self._seats.get(number)
        if seat is None:
            return "stop"
        self._note_place(seat, rank, place, node)
        if place < seat.n_jobs:
            return seat.jobs[place]
        if seat.busy is not None:
            return None
        if self._stopping or seat.released or (self._one_each and seat.n_jobs):
            # For all ranks: a fold that is submitted now is not for this group.
            seat.released = True
            return "stop"
        key = next(self._next_keys(), None)
        if key is None:
            return None
        self._start(number, key)
        return seat.jobs[place]

    def _note_place(self, seat: _Seat, rank: int, place: int, node: str) -> None:
        seat.nodes.add(node)
        seat.places[rank] = place
        if len(seat.places) == seat.n_ranks:
            first = min(seat.places.values())
            seat.jobs = {at: job for at, job in seat.jobs.items() if at >= first}
            seat.ends = {at: ends for at, ends in seat.ends.items() if at >= first}

    def _start(self, number: int, key: str) -> None:
        fold, seat, now = self._folds[key], self._seats[number], self._clock()
        # Who submitted it first may not want it any more.
        submission, index = next(self._wanting(key))
        fold.job, fold.seat = submission.jobs[index], number
        seat.jobs[seat.n_jobs] = fold.job
        seat.n_jobs += 1
        seat.busy, seat.busy_since = key, now
        times = self._times[seat.group]
        times.n_folds += 1
        if times.first_job is None:
            times.first_job = now

    def done(self, number: int, rank: int, place: int, end: FoldEnd) -> None:
        """A rank has ended the job at a place of its seat; see ``verdict``."""
        seat = self._seats.get(number)
        if seat is None:
            return
        if end.kind == "broken":
            self._leave(number, end.reason, alive=True)
            return
        ends = seat.ends.setdefault(place, {})
        ends[rank] = end
        in_training = seat.busy is not None and place == seat.n_jobs - 1
        stored = rank == 0 and end.kind == "trained"
        if in_training and (stored or len(ends) == seat.n_ranks):
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
        ends = seat.ends[place]
        if ends[rank].kind == "trained":
            return "continue"
        if len(ends) == seat.n_ranks:
            alike = {(end.kind, str(end.error)) for end in ends.values()}
            in_step = seat.n_ranks == 1 or all(end.in_step for end in ends.values())
            return "continue" if len(alike) == 1 and in_step else "restart"
        if not final:
            return None
        if seat.busy is not None and place == seat.n_jobs - 1:
            self._finish(seat, place)
        return "restart"

    def _finish(self, seat: _Seat, place: int) -> None:
        """Ends the fold of a seat by what its ranks have reported."""
        key, ends = self._free(seat), seat.ends[place]
        errors = [end.error for _, end in sorted(ends.items()) if end.error is not None]
        trained = 0 in ends and ends[0].kind == "trained"
        if trained or errors:
            self._resolve(key, None if trained else errors[0])
        elif any(self._wanting(key)):
            # It was submitted again while its cancelled training came to its end.
            self._folds[key].seat = None
        else:
            del self._folds[key]

    def _free(self, seat: _Seat) -> str:
        """Takes its fold from a seat; returns the cache key."""
        key, now = seat.busy, self._clock()
        assert key is not None
        self._times[seat.group].busy_s += now - seat.busy_since
        seat.busy, seat.idle_since = None, now
        return key

    def to_cancel(self, number: int) -> int:
        """Place of the job that a seat's rank 0 must end; -1: none."""
        seat = self._seats.get(number)
        return -1 if seat is None else seat.cancelled

    # For the supervisor of worker groups.

    def requested(self, group: str) -> None:
        """A group is being started."""
        self._times[group] = GroupTimes(group, self._clock())

    def lost(self, group: str, reason: str) -> None:
        """The workers of a group are gone; its fold waits again."""
        for number in [n for n, seat in self._seats.items() if seat.group == group]:
            self._leave(number, reason, alive=False)

    def finished(self, group: str, reason: str) -> None:
        """A group has ended for good; a fold that it trained is lost."""
        self.lost(group, reason)
        # A restarted queue does not know the groups of the one that was lost.
        if group in self._times:
            self._times[group].ended = self._clock()

    def _leave(self, number: int, reason: str, *, alive: bool) -> None:
        seat = self._seats.pop(number)
        if seat.busy is None:
            return
        fold = self._folds[self._free(seat)]
        fold.seat = None
        if not any(self._wanting(fold.job.key)):
            del self._folds[fold.job.key]
            return
        fold.losses.append(_Loss(self._clock(), frozenset(seat.nodes), reason, alive))
        task = fold.job.task
        trials = [s.trial for s, _ in self._wanting(fold.job.key) if s.trial is not None]
        owner = f"trial {trials[0]:04d}" if trials else task.experiment.name
        self._losses.append(f"{owner} fold {task.fold} was lost by {seat.group}: {reason}")

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
        self._forget_unseen(now)
        losses, self._losses = tuple(self._losses), []
        return QueueStatus(
            n_waiting=len(set(self._next_keys())),
            idle_s={
                seat.group: None if seat.busy is not None else now - seat.idle_since
                for seat in self._seats.values()
                if not seat.released
            },
            losses=losses,
        )

    def times(self) -> list[GroupTimes]:
        """Times of all groups, as of now."""
        now = self._clock()
        running = {s.group: now - s.busy_since for s in self._seats.values() if s.busy is not None}
        return [
            replace(times, busy_s=times.busy_s + running.get(group, 0.0))
            for group, times in self._times.items()
        ]

    def _forget_unseen(self, now: float) -> None:
        for number, submission in list(self._submissions.items()):
            if now - submission.seen > NOT_SEEN_S:
                self.close(number)

    # Which fold is next.

    def _next_keys(self) -> Iterator[str]:
        """The folds that free groups get, in this order.

        First the next fold of each submission that has none in training or to decide about,
        the oldest submission first; only then further folds of the others, which would be for
        nothing if their trial is stopped.
        """
        further: list[str] = []
        for submission in list(self._submissions.values()):
            undecided = submission.decides and submission.n_decided in submission.ends
            running, free = self._open_folds(submission)
            free = [key for key in free if self._may_start(key)]
            if free and not (running or undecided):
                yield free.pop(0)
            further += free
        yield from further

    def _open_folds(self, submission: _Submission) -> tuple[bool, list[str]]:
        """Whether a fold of a submission is in training, and those that could be."""
        running, free, numbers = False, [], set[int]()
        for index, job in enumerate(submission.jobs):
            if index in submission.ends:
                continue
            if self._folds[job.key].seat is not None:
                running = True
            elif job.task.fold not in numbers:
                free.append(job.key)
            numbers.add(job.task.fold)
        return running, free

    def _may_start(self, key: str) -> bool:
        """Whether a waiting fold is to be trained; ends it if it was lost too often."""
        if key not in self._folds:
            return False
        if self._stored(self._folds[key].job):
            self._resolve(key, None)
            return False
        losses = self._folds[key].losses
        if len(losses) <= self._max_failures:
            return True
        nodes = frozenset(node for loss in losses if not loss.alive for node in loss.nodes)
        gone = self._lost_nodes(nodes) if nodes else frozenset()
        counted_losses = [loss for loss in losses if loss.alive or not loss.nodes & gone]
        if len(counted_losses) <= self._max_failures:
            return True
        last = counted_losses[-1]
        if last.alive or self._clock() - last.at >= NODE_NOTICED_S:
            self._resolve(key, self._poison(self._folds[key].job, last.reason))
        return False

    def _poison(self, job: Job, reason: str) -> TrainingError:
        times = counted(self._max_failures + 1, "time")
        return TrainingError(
            f"a worker group must finish a fold before it is lost {times}",
            got=reason,
            where=f"fold {job.task.fold} of {job.task.experiment.name}",
            fix="Debug the fold without Ray: hms-ray train FILE --local --fold "
            f"{job.task.fold}. Allow more losses with --set resources.max_failures=N",
        )
