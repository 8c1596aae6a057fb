"""Cost of a run of a study and its estimate: plain data, and its texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hms_ray.display.tables import NO_BREAK, Column, Table
from hms_ray.text import clock_text, counted

Work = Literal["search", "confirm"]
"""What a run does: search, or train the best trials again with new seeds."""

_LEGEND = (
    "useful share: training / (slots x time since the first job). start-up: from the start of the "
    "run to its first job. saved: training that the fold store, shared stages and pruning spared."
)


@dataclass(frozen=True)
class Estimate:
    """Seconds that a run was expected to take.

    Attributes:
        seconds: start-up included.
        source: ``bench``, or ``first folds`` if it was made from the first folds of the run.
    """

    seconds: float
    source: str


@dataclass(frozen=True)
class RunCost:
    """One run of a study; all times in seconds.

    Attributes:
        started: ISO 8601, UTC.
        seconds: wall time so far.
        start_up_s: from the start to the first job.
        slots: worker groups at once.
        n_folds: folds trained in this run.
        images: images trained, over all epochs.
        training_s: training of these folds, from opening their data to storing their results.
        evaluated_s: part of it in which validation rows were scored.
        saved_by_store_s: training of the folds that were in the fold store.
        saved_by_stages_s: training of first stages that were in the fold store.
        saved_by_pruning_s: training of the folds that pruned trials did not need, estimated
            from their own folds.
        devices: GPUs of a worker group; without any, its CPUs.
        estimate: None if there was none.
        work: what the run did.
    """

    started: str
    seconds: float
    start_up_s: float
    slots: int
    n_folds: int
    images: int
    training_s: float
    evaluated_s: float
    saved_by_store_s: float = 0.0
    saved_by_stages_s: float = 0.0
    saved_by_pruning_s: float = 0.0
    devices: float = 1.0
    estimate: Estimate | None = None
    work: Work = "search"

    @property
    def saved_s(self) -> float:
        """All that was saved."""
        return self.saved_by_store_s + self.saved_by_stages_s + self.saved_by_pruning_s

    @property
    def saved_by_pruning_device_hours(self) -> float:
        """Device hours that pruning saved."""
        return self.saved_by_pruning_s * self.devices / 3600

    @property
    def useful_share(self) -> float | None:
        """Training seconds / (slots x time since the first job); None without a job."""
        available = self.slots * (self.seconds - self.start_up_s)
        return self.training_s / available if self.n_folds and available > 0 else None


def cost_text(cost: RunCost) -> str:
    """The cost of a run in a few sentences, with its estimate."""
    name = "This run" if cost.work == "search" else "Confirmation with new seeds"
    lines = [f"{name} took {clock_text(cost.seconds)}{_estimated(cost)}."]
    if cost.useful_share is not None:
        since = clock_text(cost.seconds - cost.start_up_s)
        lines.append(
            f"Useful share {cost.useful_share:.0%}: {clock_text(cost.training_s)} of training "
            f"({counted(cost.n_folds, 'fold')}, {cost.images:,} images) in "
            f"{counted(cost.slots, 'slot')} x {since} since the first job. "
            f"Start-up before it: {clock_text(cost.start_up_s)}."
        )
    saved = {
        "the fold store": cost.saved_by_store_s,
        "shared stages": cost.saved_by_stages_s,
    }
    parts = [f"{clock_text(seconds)} by {by}" for by, seconds in saved.items() if seconds >= 1]
    if parts:
        lines.append(f"Training saved: {', '.join(parts)}.")
    if cost.saved_by_pruning_s:
        lines.append(
            f"Pruning saved about {cost.saved_by_pruning_device_hours:.2g} device hours, "
            f"{clock_text(cost.saved_by_pruning_s)} of training."
        )
    return " ".join(lines)


def estimate_text(estimate: Estimate | None) -> str:
    """The line before the first job: how long the run will take, by its bench."""
    if estimate is None:
        return "no estimate: no bench of this space on this data and these machines (hms-ray bench)"
    return f"estimated by bench: {clock_text(estimate.seconds)}"


def _estimated(cost: RunCost) -> str:
    if cost.estimate is None:
        return " (no estimate)"
    by = "by bench" if cost.estimate.source == "bench" else f"from its {cost.estimate.source}"
    ratio = cost.seconds / cost.estimate.seconds
    return f" (estimated {by}: {clock_text(cost.estimate.seconds)}, ratio {ratio:.2f})"


def cost_table(costs: Sequence[RunCost]) -> Table:
    """One row per run."""
    work = Column("work", [cost.work for cost in costs], right=False)
    columns = (
        Column("run (UTC)", [_minute(cost.started) for cost in costs], right=False),
        *([work] if any(cost.work != "search" for cost in costs) else []),
        Column("took", [clock_text(cost.seconds) for cost in costs]),
        Column("estimated", [_short_estimate(cost.estimate) for cost in costs]),
        Column("start-up", [clock_text(cost.start_up_s) for cost in costs]),
        Column("slots", [str(cost.slots) for cost in costs]),
        Column("folds", [f"{cost.n_folds:,}" for cost in costs]),
        Column("training", [clock_text(cost.training_s) for cost in costs]),
        Column("useful share", [_share(cost.useful_share) for cost in costs]),
        Column("saved", [clock_text(cost.saved_s) for cost in costs]),
        Column("images", [f"{cost.images:,}" for cost in costs], optional=True),
    )
    return Table("Cost of the runs", columns, (_LEGEND,))


def _minute(text: str) -> str:
    return text[:16].replace("T", NO_BREAK)


def _short_estimate(estimate: Estimate | None) -> str:
    return "-" if estimate is None else clock_text(estimate.seconds)


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
