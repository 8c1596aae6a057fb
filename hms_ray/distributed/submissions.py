"""The folds that callers want: each submission in order, each fold once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from hms_ray.distributed.fold_losses import Loss
from hms_ray.distributed.job import Job
from hms_ray.errors import FoldCancelled

NOT_SEEN_S: Final = 120.0
"""A submission whose caller has not called for so long has lost its process."""


@dataclass
class Fold:
    """A fold to train, once for all submissions that want it.

    Attributes:
        job: of the submission that it is trained for.
        seat: number of the seat that trains it.
        losses: see ``LossLimit``.
    """

    job: Job
    seat: int | None = None
    losses: list[Loss] = field(default_factory=list)


@dataclass
class Submission:
    """The folds that one caller wants.

    Attributes:
        jobs: in order.
        trial: number that ``cancel`` knows it by.
        decides: whether its caller decides after each fold if it wants the next ones.
        seen: when the caller called last.
        ends: index of an ended fold -> its error, or None.
        n_decided: folds about which the caller has decided.
    """

    jobs: list[Job]
    trial: int | None
    decides: bool
    seen: float
    ends: dict[int, Exception | None] = field(default_factory=dict)
    n_decided: int = 0

    @property
    def undecided(self) -> bool:
        """Whether its caller has to decide about an ended fold."""
        return self.decides and self.n_decided in self.ends


class Submissions:
    """All submissions and their folds.

    Args:
        first: number of the first submission, minus one.
        on_unwanted: called with a fold in training that no submission wants any more.
        on_end: called after a fold has ended for its submissions.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        first: int,
        on_unwanted: Callable[[Fold], None],
        on_end: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self.folds: dict[str, Fold] = {}
        """Cache key -> a fold that waits or is in training."""
        self._submissions: dict[int, Submission] = {}
        self._number = first
        self._on_unwanted, self._on_end, self._clock = on_unwanted, on_end, clock

    def __iter__(self) -> Iterator[Submission]:
        return iter(list(self._submissions.values()))

    def of_caller(self, number: int) -> Submission:
        """A submission whose caller calls now."""
        submission = self._submissions[number]
        submission.seen = self._clock()
        return submission

    def decided(self, number: int, index: int) -> None:
        """See ``JobQueue.decided``."""
        if number in self._submissions:
            self.of_caller(number).n_decided = index + 1

    def add(self, jobs: Sequence[Job], trial: int | None, decides: bool) -> int:
        """See ``JobQueue.submit``."""
        former = [n for n, s in self._submissions.items() if trial is not None and s.trial == trial]
        self._number += 1
        self._submissions[self._number] = Submission(list(jobs), trial, decides, self._clock())
        for job in jobs:
            self.folds.setdefault(job.key, Fold(job))
        for number in former:
            self.close(number)
        return self._number

    def close(self, number: int) -> None:
        """Ends a submission; its folds that no other one wants are dropped or cancelled."""
        submission = self._submissions.pop(number, None)
        if submission is not None:
            self._drop_unwanted(submission)

    def close_unseen(self) -> None:
        """Ends the submissions whose callers have lost their processes."""
        now = self._clock()
        for number, submission in list(self._submissions.items()):
            if now - submission.seen > NOT_SEEN_S:
                self.close(number)

    def cancel(self, trial: int, reason: str) -> None:
        """Ends the folds of a trial with ``FoldCancelled``."""
        for submission in self:
            if submission.trial == trial:
                for index in range(len(submission.jobs)):
                    submission.ends.setdefault(index, FoldCancelled(reason))
                self._drop_unwanted(submission)

    def _drop_unwanted(self, submission: Submission) -> None:
        for key in dict.fromkeys(job.key for job in submission.jobs):
            fold = self.folds.get(key)
            if fold is None or any(self.wanting(key)):
                continue
            if fold.seat is None:
                del self.folds[key]
            else:
                self._on_unwanted(fold)

    def wanting(self, key: str) -> Iterator[tuple[Submission, int]]:
        """The submissions that still want a fold, and its index in each."""
        for submission in self._submissions.values():
            for index, job in enumerate(submission.jobs):
                if job.key == key and index not in submission.ends:
                    yield submission, index

    def resolve(self, key: str, end: Exception | None) -> None:
        """Ends a fold for all submissions that want it."""
        del self.folds[key]
        for submission, index in self.wanting(key):
            submission.ends[index] = end
        self._on_end()

    def wait_again(self, key: str) -> bool:
        """Takes a fold from its seat; False if no submission wants it, so that it is dropped."""
        wanted = any(self.wanting(key))
        if wanted:
            self.folds[key].seat = None
        else:
            del self.folds[key]
        return wanted

    def next_keys(self, may_start: Callable[[str], bool]) -> Iterator[str]:
        """The folds that free groups get, in this order.

        First the next fold of each submission that has none in training or to decide about,
        the oldest submission first; only then further folds of the others, which would be for
        nothing if their trial is stopped.

        Args:
            may_start: whether a waiting fold may be trained now; it may also end the fold.
        """
        further: list[str] = []
        for submission in self:
            undecided = submission.undecided
            running, free = self._open_folds(submission)
            free = [key for key in free if key in self.folds and may_start(key)]
            if free and not (running or undecided):
                yield free.pop(0)
            further += free
        yield from further

    def _open_folds(self, submission: Submission) -> tuple[bool, list[str]]:
        """Whether a fold of a submission is in training, and those that could be."""
        running, free, numbers = False, [], set[int]()
        for index, job in enumerate(submission.jobs):
            if index in submission.ends:
                continue
            if self.folds[job.key].seat is not None:
                running = True
            elif job.task.fold not in numbers:
                free.append(job.key)
            numbers.add(job.task.fold)
        return running, free
