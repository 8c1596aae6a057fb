"""Costs of a study's runs, counted from their events and the fold store."""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from hms_ray.display.run_cost import Estimate, RunCost, Work
from hms_ray.errors import StudyError
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.run_log import FaultLog
from hms_ray.storage.structured_files import json_text, read_json, write_text
from hms_ray.study.bench_estimate import BenchEstimate

logger = logging.getLogger(__name__)

COSTS_FILE: Final = "costs.json"


class GroupSpan(Protocol):
    """When a worker group existed; Unix times."""

    @property
    def first_job(self) -> float | None:
        """When it took its first fold; None: it got none."""

    @property
    def ended(self) -> float | None:
        """When it ended; None: it still runs."""


class RunCounter:
    """Counts the work of one run of a study and keeps it in the study's folder.

    Begins with its construction. Nothing that it meets ends the run.

    Args:
        study: the study's folder.
        results: folder of the fold store.
        work: what the run does.
        clock: Unix time.
        devices: of a worker group.

    Attributes:
        slots: worker groups at once.
        estimate: see ``RunCost``.
        last: the cost that was written last; None before.
    """

    def __init__(
        self,
        study: Path,
        results: Path,
        work: Work = "search",
        clock: Callable[[], float] = time.time,
        devices: float = 1.0,
    ) -> None:
        self._study, self._work, self._clock = study, work, clock
        self._store = FoldStore(results)
        self._started = clock()
        self._first_job: float | None = None
        # Filled by the thread that handles events.
        self._waiting: deque[tuple[str, bool]] = deque()
        self._sums: dict[str, float] = defaultdict(float)
        self._faults = FaultLog(logger)
        self.slots, self._devices = 0, devices
        self.last: RunCost | None = None
        self.estimate: Estimate | None = None

    def start(self, n_trials: int, slots: int, bench: BenchEstimate | None) -> None:
        """Takes what is known before the first job.

        Args:
            n_trials: to be finished in this run.
            slots: worker groups at once.
            bench: gives the estimate; None if there is none of this space, data and machines.
        """
        self.slots = slots
        if bench is not None:
            self.estimate = bench.run(n_trials, slots, pruned=self._work == "search")

    def set_groups(self, groups: Sequence[GroupSpan]) -> None:
        """Takes the times of worker groups, which are more exact than events.

        Args:
            groups: all groups of the run; those that never took a fold do not count.
        """
        taken = [group for group in groups if group.first_job is not None]
        if not taken:
            return
        self._first_job = min(group.first_job or 0.0 for group in taken)
        now = self._clock()
        spans = [(group.first_job or 0.0, group.ended or now) for group in taken]
        self.slots = max(sum(first <= start < last for first, last in spans) for start, _ in spans)

    def handle(self, event: Mapping[str, Any]) -> None:
        """Takes an event, see ``report.progress.TrainingProgress``."""
        if event["event"] == "fold_started" and self._first_job is None:
            self._first_job = self._clock()
        elif event["event"] == "fold_ended" and "key" in event:
            self._waiting.append((str(event["key"]), True))
        elif event["event"] == "folds_reused":
            self._waiting.extend((str(key), False) for key in event["keys"].values())

    def add_pruned(self, seconds: float) -> None:
        """Adds training that a pruned trial did not need."""
        self._sums["saved_by_pruning_s"] += seconds

    def estimate_once(self, seconds: float | None) -> None:
        """Takes an estimate from the run's first folds, unless there is one.

        Args:
            seconds: from the first job to the end of the run; None if still unknown.
        """
        if self.estimate is None and seconds is not None and self._first_job is not None:
            self.estimate = Estimate(self._first_job - self._started + seconds, "first folds")

    def cost(self) -> RunCost:
        """The cost so far."""
        now = self._clock()
        self._count()
        sums = {name: self._sums[name] for name in _SUMMED}
        return RunCost(
            started=datetime.fromtimestamp(self._started, UTC).isoformat(timespec="seconds"),
            seconds=now - self._started,
            start_up_s=(self._first_job or now) - self._started,
            slots=self.slots,
            work=self._work,
            n_folds=round(self._sums["n_folds"]),
            images=round(self._sums["images"]),
            devices=self._devices,
            estimate=self.estimate,
            **sums,
        )

    def _count(self) -> None:
        """Adds the folds that have ended since the last call and can be read."""
        for _ in range(len(self._waiting)):
            key, trained = self._waiting.popleft()
            try:
                record = self._store.record(key)
            except StudyError:
                # Its files may become visible on this machine later, or it is freed already.
                self._waiting.append((key, trained))
                continue
            seconds, saved = float(record["seconds"]), float(record["saved_s"])
            if not trained:
                self._sums["saved_by_store_s"] += seconds + saved
                continue
            timing = record.get("timing", {})
            self._sums["n_folds"] += 1
            self._sums["training_s"] += seconds
            self._sums["saved_by_stages_s"] += saved
            self._sums["evaluated_s"] += timing.get("evaluate_s", 0.0)
            self._sums["images"] += timing.get("images_per_s", 0.0) * timing.get("train_s", 0.0)

    @contextmanager
    def written(self, first_estimate_s: Callable[[], float | None]) -> Iterator[None]:
        """Writes the cost at the end of a block, however it ends.

        Args:
            first_estimate_s: see ``estimate_once``.
        """
        try:
            yield
        finally:
            self.estimate_once(first_estimate_s())
            self.write()

    def write(self) -> None:
        """Writes the cost so far after those of earlier runs; it is kept if this run is killed."""
        if not self._study.is_dir():
            return  # Removed: not made again for this file.
        with self._faults(f"{COSTS_FILE} was not written"):
            cost = self.last = self.cost()
            mine = cost.started, cost.work
            earlier = [one for one in read_costs(self._study) if (one.started, one.work) != mine]
            costs = [asdict(one) for one in (*earlier, cost)]
            write_text(self._study / COSTS_FILE, json_text(costs))


_SUMMED: Final = (
    *("training_s", "evaluated_s"),
    *("saved_by_store_s", "saved_by_stages_s", "saved_by_pruning_s"),
)


def read_costs(study: Path) -> list[RunCost]:
    """Costs of a study's runs, oldest first; none for studies of earlier versions.

    Raises:
        StudyError: if the file is damaged.
    """
    file = study / COSTS_FILE
    if not file.is_file():
        return []
    fix = "Move that file away: nothing else needs it."
    costs = []
    for entry in read_json(file, list, fix):
        try:
            estimate = entry["estimate"]
            known = None if estimate is None else Estimate(**estimate)
            costs.append(RunCost(**{**entry, "estimate": known}))
        except (KeyError, TypeError) as error:
            raise StudyError(
                f"{COSTS_FILE} must hold the cost of each run",
                got=f"{type(error).__name__}: {error}",
                where=file,
                fix=fix,
            ) from None
    return costs
