"""What a space costs: its experiments, measured for a few steps on machines of its resources."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.import_path import is_import_path
from hms_ray.config.space import ResourcesConfig, Space
from hms_ray.config.values import parameter_values, replace_values
from hms_ray.dataset.prepare import Prepared
from hms_ray.errors import ConfigError, ResourceError, TrainingError
from hms_ray.experiment.fold_data import fold_data
from hms_ray.experiment.placement import workers_that_fit
from hms_ray.storage.hashing import digest
from hms_ray.text import counted

if TYPE_CHECKING:
    from hms_ray.train.fold_speed import FoldSpeed
    from hms_ray.train.process import Process

MAX_MEASURED: Final = 8
"""Experiments that are measured; a bench is to take minutes at most."""
AT_ONCE: Final = (1, 2, 4)
"""Folds at once on one GPU that are compared."""
BENCH_FOLD: Final = 0
WORKER_NICENESS: Final = 15
"""Priority of Ray's workers (``RAY_worker_niceness``): other load on the machine goes first."""


@dataclass(frozen=True)
class Variant:
    """An experiment of a space.

    Attributes:
        name: ``experiment``, or the searched value that differs, such as ``model.name=...``.
        path: dotted path of that value; empty for the experiment itself.
        experiment: with that value.
        speed_key: equal for experiments that train equally fast per image.
    """

    name: str
    path: str
    experiment: Experiment

    @property
    def speed_key(self) -> str:
        """Digest of what decides the time per image."""
        data = canonical(self.experiment)
        training, model = data["training"], data["model"]
        stages = self.experiment.training.resolved_stages()
        kinds = [{stage.has_mosaic(epoch) for epoch in range(stage.epochs)} for stage in stages]
        parts = [
            data["input"],
            [
                [*image, _architecture(one["name"]), one["drop_path"] > 0, one.get("frozen")]
                for image, one in _models_and_images(model)
            ],
            {name: value for name, value in training.items() if name not in _FREE},
            [stage.augment.model_dump(mode="json") for stage in stages],
            # Windows of label rows are not cached.
            [stage.label_rows != "own" for stage in stages],
            [sorted(kind) for kind in kinds],
            *([data["prediction"]] if "prediction" in data else []),
        ]
        return digest(parts)


def _models_and_images(model: Mapping[str, Any]) -> list[tuple[list[Any], Mapping[str, Any]]]:
    """The model, or each branch after what makes its image."""
    if "branches" not in model:
        return [([], model)]
    fields = ("views", "height", "size", "pad")
    return [([one[name] for name in fields], one) for one in model["branches"]]


def _architecture(name: str) -> str:
    """The name without its tag, which names weights only."""
    return name if is_import_path(name) else name.split(".")[0]


_FREE: Final = frozenset(
    {
        *("seed", "schedule", "weight_decay", "warmup", "div_factor", "final_div_factor"),
        *("normalise_weights", "stages"),
    }
)
"""Fields of ``training`` that change no speed; stages are compared by their augmentation and
their label rows."""


def variants(space: Space) -> list[Variant]:
    """The experiment of a space, and with each searched value alone.

    Of a range: its bounds and a number between them. Values that are valid only together with
    others are skipped.
    """
    return [Variant("experiment", "", space.experiment), *_searched(space)]


def _searched(space: Space) -> Iterator[Variant]:
    for path, parameter in space.parameters.items():
        for label, value in parameter_values(parameter).items():
            try:
                changed = replace_values(space.experiment, {path: value})
            except ConfigError:
                continue
            yield Variant(f"{path}={label}", path, changed)


def measured_variants(every: Sequence[Variant]) -> list[Variant]:
    """The first variant of each speed, at most ``MAX_MEASURED``."""
    found: dict[str, Variant] = {}
    for variant in every:
        found.setdefault(variant.speed_key, variant)
    return list(found.values())[:MAX_MEASURED]


@dataclass(frozen=True)
class BenchJob:
    """What is measured on a machine; paths and settings, no arrays.

    Attributes:
        experiments: measured one after the other.
        prepared: rows and packs.
        resources: of a worker group.
    """

    experiments: tuple[Experiment, ...]
    prepared: Prepared
    resources: ResourcesConfig


@dataclass(frozen=True)
class MachineSpeed:
    """Speed of one kind of machine.

    Attributes:
        machine: such as ``2 CPUs``.
        n_machines: of this kind.
        n_groups: worker groups at once on each.
        workers: processes of a measured group: those of ``resources``, or fewer.
        speeds: of each experiment of the job; repetitions of all groups are pooled.
        at_once: number of folds at once on a GPU -> images per second of all of them, of the
            job's first experiment; empty on a CPU.
        local: whether it is the machine that runs the command.
    """

    machine: str
    n_machines: int
    n_groups: int
    workers: int
    speeds: tuple[FoldSpeed, ...]
    at_once: Mapping[int, float]
    local: bool = True

    @property
    def kind(self) -> str:
        """The machine's name; on the machine that runs the command, with its host."""
        return _here(self.machine) if self.local else self.machine


def local_machine(cpus: float, gpus: float) -> str:
    """``MachineSpeed.kind`` of the machine that runs the command."""
    return _here(_machine(cpus, gpus))


def _here(machine: str) -> str:
    return f"{socket.gethostname()}: {machine}"


def require_worker(resources: ResourcesConfig, cpus: float, gpus: float) -> int:
    """How many workers fit on a machine at once, at least one.

    Raises:
        ResourceError: if none does.
    """
    fitting = workers_that_fit(cpus, gpus, resources)
    if fitting < 1:
        raise ResourceError(
            "a worker must fit on a machine",
            got=f"a worker of {counted(resources.cpus_per_worker, 'CPU')} and "
            f"{counted(resources.gpus_per_worker, 'GPU')} on {_machine(cpus, gpus)}",
            fix="Request less (--set resources.cpus_per_worker=N, resources.gpus_per_worker=0), "
            "or measure on a cluster with --address.",
        )
    return fitting


def measure_machine(job: BenchJob, cpus: float, gpus: float, name: str = "") -> MachineSpeed:
    """Measures a job on this machine, with all groups at the same time that fit or are allowed.

    On GPUs one of them is measured, with as many folds at once as share it. A group of several
    GPUs is measured with one worker.

    Args:
        job: what is measured.
        cpus: logical CPUs that worker groups may use.
        gpus: GPUs likewise.
        name: of the machine, for tables; default: its CPUs and GPUs.

    Raises:
        ResourceError: if no worker fits.
        HmsRayError: as training.
    """
    resources = job.resources
    fitting = require_worker(resources, cpus, gpus)
    share = resources.gpus_per_worker
    n_groups = max(1, fitting // resources.workers)
    n_groups = min(n_groups, resources.max_groups or n_groups)
    workers = min(resources.workers, fitting)
    at_once: dict[int, float] = {}
    if share > 0:
        workers, together = 1, max(1, int(1 / share))
        speeds = _measure(job, together, workers)
        at_once = _compare_at_once(job)
    else:
        together = n_groups
        speeds = _measure(job, together, workers)
    return MachineSpeed(
        machine=name or _machine(cpus, gpus),
        n_machines=1,
        n_groups=n_groups,
        workers=workers,
        speeds=tuple(speeds),
        at_once=at_once,
    )


def _machine(cpus: float, gpus: float) -> str:
    return counted(cpus, "CPU") + (f", {counted(gpus, 'GPU')}" if gpus else "")


def _measure(job: BenchJob, n_groups: int, workers: int) -> list[FoldSpeed]:
    """The speed of each experiment with groups at the same time."""
    from hms_ray.train.fold_speed import pooled
    from hms_ray.train.local_groups import LocalGroups

    resources = job.resources
    groups = LocalGroups(
        n_groups=n_groups,
        workers=workers,
        threads=max(1, int(resources.cpus_per_worker)),
        device=resources.device_class,
        windows=resources.windows,
    )
    found = groups.run(partial(_measure_here, job))
    return [pooled(speeds) for speeds in zip(*found, strict=True)]


def _measure_here(job: BenchJob, process: Process, wait: Callable[[str], None]) -> list[FoldSpeed]:
    """What every process runs."""
    from hms_ray.train.speed import measure_fold

    _take_priority_of_workers()
    speeds = []
    for number, experiment in enumerate(job.experiments):
        began = time.perf_counter()
        data = fold_data(experiment, job.prepared, BENCH_FOLD, job.prepared.rows())
        opened_s = time.perf_counter() - began
        waits = partial(_wait_in, wait, number)
        speed = measure_fold(experiment, data, BENCH_FOLD, process, wait=waits)
        speeds.append(replace(speed, prepare_s=opened_s + speed.prepare_s))
    return speeds


def _take_priority_of_workers() -> None:
    """Lowers the priority of this process for good: all that it still does is measuring."""
    if hasattr(os, "nice"):
        os.nice(max(0, WORKER_NICENESS - os.nice(0)))


def _wait_in(wait: Callable[[str], None], number: int, name: str) -> None:
    wait(f"{number} {name}")


def _compare_at_once(job: BenchJob) -> dict[int, float]:
    """Images per second of several folds at once on a GPU, as far as its memory allows."""
    first = replace(job, experiments=job.experiments[:1])
    rates = {}
    for n in AT_ONCE:
        try:
            (speed,) = _measure(first, n, 1)
        except TrainingError:
            break  # Its memory is full.
        rates[n] = n * speed.images_per_s()
    return rates
