"""The times of worker groups, as the queue of folds learns them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hms_ray.distributed.job import GroupTimes


class GroupLedger:
    """Times of all groups of a run; the groups of a lost queue are unknown until ``restore``.

    Args:
        wall: seconds since 1970.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._times: dict[str, GroupTimes] = {}

    def requested(self, group: str) -> None:
        """A group is being started."""
        self._times[group] = GroupTimes(group, self._wall())

    def started(self, group: str) -> None:
        """Workers of a group have started, for the first time or again."""
        now = self._wall()
        times = self._times.setdefault(group, GroupTimes(group, now))
        if times.started is None:
            times.started = now
        else:
            times.n_restarts += 1

    def took_fold(self, group: str) -> None:
        """A group has taken a fold."""
        times = self._times[group]
        times.n_folds += 1
        if times.first_job is None:
            times.first_job = self._wall()

    def ended_fold(self, group: str, seconds: float) -> None:
        """A group has a fold no longer, after some seconds."""
        self._times[group].busy_s += seconds

    def ended(self, group: str) -> GroupTimes | None:
        """A group has ended for good; returns its times, if it is known."""
        times = self._times.get(group)
        if times is not None:
            times.ended = self._wall()
        return times

    def restore(self, times: Sequence[GroupTimes]) -> None:
        """Adds what was known about groups before; their workers may have started again since."""
        for former in times:
            again = self._times.get(former.group)
            if again is not None and former.started is None:
                former = replace(again, requested=former.requested)
            elif again is not None:
                former = replace(
                    former,
                    ended=again.ended,
                    busy_s=former.busy_s + again.busy_s,
                    n_folds=former.n_folds + again.n_folds,
                    n_restarts=former.n_restarts + again.n_restarts + 1,
                )
            self._times[former.group] = former

    def times(self, running: Mapping[str, float]) -> list[GroupTimes]:
        """Times of all groups.

        Args:
            running: group -> seconds since the start of the fold that it trains.
        """
        return [
            replace(times, busy_s=times.busy_s + running.get(group, 0.0))
            for group, times in self._times.items()
        ]
