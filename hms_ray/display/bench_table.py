"""What a bench found, as tables: speeds, folds at once on a GPU, hours of the space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hms_ray.display.store_table import size_text
from hms_ray.display.tables import Column, Table, to_text
from hms_ray.text import counted

_LEGEND: Final = (
    "images/s: trained by one worker group, with as many groups at once as fit on the machine; "
    "median and range of the repetitions, warm-up excluded. scored/s: in an evaluation. input: "
    "share of the time in which images were made; the rest is forward, backward and optimiser. "
    "memory: of one process, at most."
)


@dataclass(frozen=True)
class SpeedRow:
    """Speed of one experiment on one kind of machine.

    Attributes:
        machine: such as ``2 CPUs``.
        name: of the experiment, or the searched value that differs.
        image_sizes: height and width of each image.
        images_per_s: median, smallest and largest.
        scored_per_s: images per second of an evaluation.
        input_share: of training time.
        memory_bytes: largest memory of a process, or on the GPU.
        fold_s: estimated seconds of a mean fold.
    """

    machine: str
    name: str
    image_sizes: tuple[tuple[int, int], ...]
    images_per_s: tuple[float, float, float]
    scored_per_s: float
    input_share: float
    memory_bytes: int
    fold_s: float


@dataclass(frozen=True)
class BenchReport:
    """All that a bench prints.

    Attributes:
        space: its name.
        rows: measured experiments.
        pack_bytes: size of all packs in use.
        at_once: machine -> folds at once on a GPU -> images per second of all of them.
        groups: what runs at once and why, one sentence per kind of machine.
        n_trials: to be finished.
        n_folds: of a trial.
        visits: image visits of the experiment.
        trial_s: smallest, median and largest estimate of the mean trial's seconds, all folds
            one after the other in one worker group.
        slots: worker groups at once on all machines.
        kept_share: of the folds, with pruning.
        kept_source: where that share is from.
        notes: what was assumed or skipped.
    """

    space: str
    rows: Sequence[SpeedRow]
    pack_bytes: int
    at_once: Mapping[str, Mapping[int, float]]
    groups: Sequence[str]
    n_trials: int
    n_folds: int
    visits: int
    trial_s: tuple[float, float, float]
    slots: int
    kept_share: float
    kept_source: str
    notes: Sequence[str] = ()


def bench_text(report: BenchReport) -> str:
    """Tables and the hours of the space."""
    return to_text(
        _speeds(report),
        f"Packs: {size_text(report.pack_bytes)}; all processes of a CPU share their pages.",
        *(_at_once(machine, rates) for machine, rates in report.at_once.items() if rates),
        " ".join(report.groups),
        _hours(report),
        *report.notes,
    )


def best_at_once(rates: Mapping[int, float]) -> int:
    """The number of folds at once with the most images per second; of equal ones the smallest."""
    return max(sorted(rates), key=lambda n: rates[n])


def duration_text(seconds: float) -> str:
    """``4.2 h``, below two hours ``25 min`` and below two minutes ``40 s``."""
    if seconds >= 7200:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def _sizes(row: SpeedRow) -> str:
    return " + ".join(f"{height} x {width}" for height, width in row.image_sizes)


def _speeds(report: BenchReport) -> Table:
    rows = report.rows
    columns = (
        Column("machine", [row.machine for row in rows], right=False, optional=True),
        Column("experiment", [row.name for row in rows], right=False),
        Column("image", [_sizes(row) for row in rows], optional=True),
        Column("images/s", [f"{row.images_per_s[0]:.4g}" for row in rows]),
        Column("range", ["{1:.4g}-{2:.4g}".format(*row.images_per_s) for row in rows]),
        Column("scored/s", [f"{row.scored_per_s:.4g}" for row in rows]),
        Column("input", [f"{row.input_share:.0%}" for row in rows]),
        Column("memory", [size_text(row.memory_bytes) for row in rows]),
        Column("fold", [duration_text(row.fold_s) for row in rows]),
    )
    return Table(f"Bench of {report.space}", columns, (_LEGEND,))


def _at_once(machine: str, rates: Mapping[int, float]) -> Table:
    best = best_at_once(rates)
    first = rates[min(rates)]
    columns = (
        Column("folds at once", [str(n) for n in rates]),
        Column("images/s together", [f"{rate:.4g}" for rate in rates.values()]),
        Column("ratio", [f"{rate / first:.2f}" for rate in rates.values()]),
    )
    share = 1 / best
    advice = f"Best: {counted(best, 'fold')} at once, --set resources.gpus_per_worker={share:g}."
    return Table(f"Folds at once on one GPU of {machine}", columns, (advice,))


def _hours(report: BenchReport) -> str:
    low, middle, high = (
        duration_text(seconds * report.n_trials / report.slots) for seconds in report.trial_s
    )
    pruned = duration_text(report.trial_s[1] * report.n_trials * report.kept_share / report.slots)
    return (
        f"The space: {counted(report.n_trials, 'trial')} x {counted(report.n_folds, 'fold')}, "
        f"{report.visits:,} image visits per trial (of the experiment itself), "
        f"{counted(report.slots, 'slot')}. Without pruning {middle} ({low} to {high} by the range "
        f"of the repetitions), with pruning {pruned} if {report.kept_share:.0%} of the folds are "
        f"trained ({report.kept_source}); start-up of about half a minute not included."
    )
