"""One start of a worker group, and the jobs that its ranks take one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hms_ray.distributed.job import FoldEnd, Job
from hms_ray.train.pulse import RankPulse

Verdict = Literal["continue", "restart"]


@dataclass
class Seat:
    """Which job each rank is at, and how jobs ended; a restarted group has a new seat.

    Attributes:
        group: name of the group.
        n_ranks: its world size.
        idle_since: end of its last fold.
        nodes: machines of its ranks.
        n_jobs: jobs that it was given.
        busy: the job in training.
        busy_since: its start.
        cancelled: place of the job to cancel; -1: none.
        released: whether the group ends before its next job.
    """

    group: str
    n_ranks: int
    idle_since: float
    nodes: set[str] = field(default_factory=set)
    n_jobs: int = 0
    busy: Job | None = None
    busy_since: float = 0.0
    cancelled: int = -1
    released: bool = False
    _jobs: dict[int, Job] = field(default_factory=dict)
    """Place in the sequence -> job, until all ranks have taken a later one."""
    _places: dict[int, int] = field(default_factory=dict)
    """Rank -> place of the job that it requested last."""
    _ends: dict[int, dict[int, FoldEnd]] = field(default_factory=dict)
    """Place -> rank -> how it ended."""
    _pulses: dict[int, tuple[float, RankPulse]] = field(default_factory=dict)
    """Rank -> its last pulse, and when it gave the last sign of life."""

    def request(self, rank: int, place: int, node: str) -> Job | None:
        """Notes where a rank is; returns the job at its place, if there is one."""
        self.nodes.add(node)
        self._places[rank] = place
        if len(self._places) == self.n_ranks:
            first = min(self._places.values())
            self._jobs = {at: job for at, job in self._jobs.items() if at >= first}
            self._ends = {at: ends for at, ends in self._ends.items() if at >= first}
        return self._jobs[place] if place < self.n_jobs else None

    def start(self, job: Job, now: float) -> None:
        """Gives a job to all ranks."""
        self._jobs[self.n_jobs] = job
        self.n_jobs += 1
        self.busy, self.busy_since = job, now

    def trains(self, place: int) -> bool:
        """Whether the job at a place is the one in training."""
        return self.busy is not None and place == self.n_jobs - 1

    def cancel(self) -> None:
        """Requests the end of the job in training."""
        self.cancelled = self.n_jobs - 1

    def free(self, now: float) -> tuple[Job, float]:
        """Takes the job in training from the seat; returns it and the seconds that it took."""
        assert self.busy is not None
        job, seconds = self.busy, now - self.busy_since
        self.busy, self.idle_since = None, now
        return job, seconds

    def report(self, rank: int, place: int, end: FoldEnd) -> bool:
        """Notes how a rank ended a job; returns whether the fold in training has ended by it."""
        ends = self._ends.setdefault(place, {})
        ends[rank] = end
        stored = rank == 0 and end.kind == "trained"
        return self.trains(place) and (stored or len(ends) == self.n_ranks)

    def pulse(self, rank: int, pulse: RankPulse, now: float) -> None:
        """Notes how far a rank is with the job in training."""
        self._pulses[rank] = now - pulse.age_s, pulse

    def stall(self, timeout_s: float, now: float) -> str | None:
        """Why the job in training is regarded as stalled; None unless it is.

        It is if no rank that still trains it has given a sign of life for ``timeout_s``. One that
        loads or compiles gives no pulse, and the others may wait for it.
        """
        place = self.n_jobs - 1
        ended = self._ends.get(place, {})
        left = [rank for rank in range(self.n_ranks) if rank not in ended]
        found = [self._pulses.get(rank) for rank in left]
        pulses = [(at, one) for at, one in filter(None, found) if one.place == place]
        if self.busy is None or not left or len(pulses) < len(left):
            return None
        silent_s = now - max(at for at, _ in pulses)
        if silent_s < timeout_s:
            return None
        positions = [one.position for _, one in pulses]
        behind = [n for n, position in enumerate(positions) if position == min(positions)]
        text = f"no step for {silent_s:.0f} s"
        if len(behind) < len(left):
            ranks = ", ".join(str(left[n]) for n in behind)
            text += f", rank {ranks} is behind the others"
        return f"{text}; its stacks are in {pulses[behind[0]][1].log}"

    def ends(self, place: int) -> list[FoldEnd]:
        """How the ranks that have reported ended a job, in their order."""
        return [end for _, end in sorted(self._ends[place].items())]

    def verdict(self, rank: int, place: int, *, final: bool) -> Verdict | None:
        """See ``JobQueue.verdict``."""
        ends = self._ends[place]
        if ends[rank].kind == "trained":
            return "continue"
        if len(ends) == self.n_ranks:
            alike = {(end.kind, str(end.error)) for end in ends.values()}
            in_step = self.n_ranks == 1 or all(end.in_step for end in ends.values())
            reusable = in_step and all(end.reusable for end in ends.values())
            return "continue" if len(alike) == 1 and reusable else "restart"
        # The others wait in a collective for a rank that has left alone.
        alone = any(end.own and not end.in_step for end in ends.values())
        return "restart" if final or alone else None
