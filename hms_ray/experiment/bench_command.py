"""``hms-ray bench``: measures a space and prints what it would cost; stores no result."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hms_ray.config.space import ResourcesConfig, Space
from hms_ray.dataset.folds import read_folds
from hms_ray.dataset.prepare import Prepared, open_prepared, prepare
from hms_ray.dataset.sources import sources_for
from hms_ray.display.bench_table import BenchReport, SpeedRow, bench_text
from hms_ray.display.live import bar, print_text
from hms_ray.experiment.bench import (
    BenchJob,
    MachineSpeed,
    Variant,
    measure_machine,
    measured_variants,
    require_worker,
    variants,
)
from hms_ray.experiment.cost_estimate import Pick, mean_trial_seconds, trial_seconds
from hms_ray.experiment.image_visits import experiment_visits
from hms_ray.experiment.in_process import cpus_and_gpus
from hms_ray.experiment.preflight import preflight
from hms_ray.text import counted

Machines = Callable[[BenchJob], tuple[list[MachineSpeed], int]]
"""Measures a job on each kind of machine; also the worker groups at once on all of them."""


@dataclass(frozen=True)
class Benched:
    """What a bench found, and where.

    Attributes:
        trial_s: seconds of all folds of the mean trial, one after the other in one group.
        prepared: rows and packs.
        machines: kind of machine -> how many there are.
    """

    trial_s: float
    prepared: Prepared
    machines: dict[str, int]


def check_this_machine(resources: ResourcesConfig) -> None:
    """Checks that a worker fits on this machine.

    Raises:
        ResourceError: if none does.
    """
    require_worker(resources, *cpus_and_gpus(resources))


def this_machine(job: BenchJob) -> tuple[list[MachineSpeed], int]:
    """Measures on this machine, without Ray."""
    speed = measure_machine(job, *cpus_and_gpus(job.resources))
    return [speed], speed.n_groups


def bench(
    space: Space,
    name: str,
    data_dir: Path,
    results: Path,
    *,
    kept: tuple[float, str],
    fold_table: Path | None = None,
    pack_dir: Path | None = None,
    machines: Machines = this_machine,
) -> Benched:
    """Measures the experiments of a space that differ in speed, and prints the space's cost.

    Packs are made if needed, as by a sweep. Nothing is written to the fold store but the table of
    rows.

    Args:
        space: what would be searched.
        name: of the space, for the tables.
        data_dir: competition folder.
        results: folder of all studies.
        kept: share of the folds that are trained with pruning, and where it is from.
        fold_table: file with folds to use.
        pack_dir: folder of packs; default: beside the data.
        machines: see ``Machines``.

    """

    def check(rows: pd.DataFrame) -> None:
        preflight(space, rows, space.resources.device_class, space.resources.workers)

    folds = None if fold_table is None else read_folds(fold_table)
    prepared = prepare(
        data_dir,
        space.experiment,
        results,
        sources=sources_for(space),
        pack_dir=pack_dir,
        folds=folds,
        bars=bar,
        check=check,
    )
    every = variants(space)
    measured = measured_variants(every)
    job = BenchJob(tuple(one.experiment for one in measured), prepared, space.resources)
    print_text(f"measuring {counted(len(measured), 'experiment')}, about 10 s each if small")
    found, slots = machines(job)
    rows = prepared.rows()
    trials = [_Trials(every, measured, machine, rows, space.resources) for machine in found]
    slots = min(slots, space.resources.max_groups or slots)
    spread = [_over_machines(trials, pick) for pick in (min, statistics.median, max)]
    report = BenchReport(
        space=name,
        rows=[row for machine in trials for row in machine.rows()],
        pack_bytes=sum(open_prepared(pack).values.nbytes for pack in prepared.packs.values()),
        at_once={machine.machine: machine.at_once for machine in found},
        groups=[_groups_text(machine, space.resources) for machine in found],
        n_trials=space.budget.trials if space.parameters else 1,
        n_folds=prepared.n_folds,
        visits=experiment_visits(space.experiment, rows),
        trial_s=(spread[0], spread[1], spread[2]),
        slots=slots,
        kept_share=kept[0],
        kept_source=kept[1],
        notes=_notes(every, measured, found, space.resources),
    )
    print_text(f"\n{bench_text(report)}")
    return Benched(spread[1], prepared, {machine.kind: machine.n_machines for machine in found})


class _Trials:
    """Seconds of the trials of a space on one kind of machine."""

    def __init__(
        self,
        every: Sequence[Variant],
        measured: Sequence[Variant],
        machine: MachineSpeed,
        rows: pd.DataFrame,
        resources: ResourcesConfig,
    ) -> None:
        self._resources = resources
        self._every, self._measured, self.machine, self._rows = every, measured, machine, rows
        keys = [variant.speed_key for variant in measured]
        self._speeds = dict(zip(keys, machine.speeds, strict=True))

    def seconds(self, pick: Pick) -> dict[str, float]:
        """Name of a variant -> its trial's seconds, for all whose speed was measured."""
        return {
            variant.name: trial_seconds(
                variant.experiment,
                speed,
                self._rows,
                self.machine.workers,
                pick,
                self._resources,
            )
            for variant in self._every
            if (speed := self._speeds.get(variant.speed_key)) is not None
        }

    def mean(self, pick: Pick) -> float:
        """Seconds of the mean trial."""
        return mean_trial_seconds(self._every, self.seconds(pick))

    def rows(self) -> list[SpeedRow]:
        """The measured variants for the table."""
        seconds, n_folds = self.seconds(statistics.median), self._rows["fold"].nunique()
        made = []
        for variant in self._measured:
            speed = self._speeds[variant.speed_key]
            later = [s for kind in speed.epochs.values() for s in kind.later_s]
            shares = [share for kind in speed.epochs.values() for share in kind.input_share]
            made.append(
                SpeedRow(
                    machine=self.machine.machine,
                    name=variant.name,
                    image_sizes=speed.image_sizes,
                    images_per_s=(speed.images_per_s(), 1 / max(later), 1 / min(later)),
                    scored_per_s=1 / statistics.median(speed.scoring_later_s),
                    input_share=statistics.median(shares),
                    memory_bytes=speed.memory_bytes,
                    fold_s=seconds[variant.name] / n_folds,
                )
            )
        return made


def _over_machines(trials: Sequence[_Trials], pick: Pick) -> float:
    """Seconds of the mean trial in the mean group: the rates of all groups are added."""
    groups = [one.machine.n_machines * one.machine.n_groups for one in trials]
    rates = [n / one.mean(pick) for n, one in zip(groups, trials, strict=True)]
    return sum(groups) / sum(rates)


def _groups_text(machine: MachineSpeed, resources: ResourcesConfig) -> str:
    where = (
        f"{machine.n_machines} x {machine.machine}"
        if machine.n_machines > 1
        else (f"this machine ({machine.machine})" if machine.local else machine.machine)
    )
    each = f"{counted(resources.workers, 'worker')} of {counted(resources.cpus_per_worker, 'CPU')}"
    if resources.gpus_per_worker:
        each += f" and {counted(resources.gpus_per_worker, 'GPU')}"
        return f"{where}: {counted(machine.n_groups, 'worker group')} of {each} at once."
    return (
        f"{where}: {counted(machine.n_groups, 'worker group')} of {each} at once; on CPUs their "
        "number follows from resources.workers and cpus_per_worker and is not varied here."
    )


def _notes(
    every: Sequence[Variant],
    measured: Sequence[Variant],
    found: Sequence[MachineSpeed],
    resources: ResourcesConfig,
) -> list[str]:
    known = {variant.speed_key for variant in measured}
    skipped = [variant.name for variant in every if variant.speed_key not in known]
    notes = []
    if skipped:
        shown = ", ".join(skipped[:5]) + (" and more" if len(skipped) > 5 else "")
        notes.append(f"Not measured, counted as the other values of their parameter: {shown}.")
    if any(machine.workers < resources.workers for machine in found):
        notes.append(
            f"Groups of {resources.workers} workers were measured with fewer; the estimate takes "
            "no credit for the others."
        )
    if len(every) > 1:
        notes.append(
            "A trial's mean cost counts searched values as drawn uniformly and independently."
        )
    return notes
