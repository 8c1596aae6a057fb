"""What a launch file starts: a sweep, its machines, its shared storage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from hms_ray.config.loading import load_space
from hms_ray.config.shipped import FOLDER, find_space
from hms_ray.errors import ConfigError
from hms_ray.storage.folder_names import checked_name
from hms_ray.text import command_line

STORAGE: Final = "/shared"
RAY_VERSION: Final = "2.60.0"
HEAD_CPUS: Final = 4
HEAD_MEMORY_GIB: Final = 16
MEMORY_PER_GPU_GIB: Final = 16
"""A worker process, its share of the packs in the page cache, and what it shares with others."""
FILES: Final = {
    "kuberay": "cluster/kuberay-rayjob.yaml",
    "raycluster": "cluster/kuberay-raycluster.yaml",
    "slurm": "cluster/slurm.sh",
    "aws": "cluster/aws.yaml",
    "gcp": "cluster/gcp.yaml",
    "machines": "cluster/machines.yaml",
}
"""Kind of file -> its name in the examples of its comments."""
NO_SPOT: Final = ("slurm", "machines")
"""Kinds of files for machines that are there already."""
LONGEST_NAME: Final = 34
"""KubeRay and Ray's names of machines add up to 29 letters; clouds and Kubernetes allow 63."""
RESTARTS: Final = 10
"""How often a scheduler starts a failed sweep again; a preempted one has no limit."""

_PLAIN_PATH: Final = re.compile(r"/[\w./-]*[\w]", re.ASCII)
_PLAIN_NAME: Final = re.compile(r"[\w.-]+", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep on a cluster.

    Attributes:
        target: word of the command that chose the kind of file.
        space: shipped name or absolute path of the search space.
        study: name of the study.
        gpus: largest number of GPUs at once.
        workers_per_fold: workers that train one fold together, each with one GPU.
        gpus_per_machine: GPUs of each machine that trains.
        cpus_per_worker: CPUs of each worker.
        spot: whether machines that train may be taken away at any time.
        storage: folder that all machines share.
        data: competition folder, on every machine.
    """

    target: str
    space: str
    study: str
    gpus: int
    workers_per_fold: int
    gpus_per_machine: int
    cpus_per_worker: int
    spot: bool
    storage: str
    data: str

    @property
    def file(self) -> str:
        """Name of the file in the commands of its comments."""
        return FILES[self.target]

    @property
    def cluster(self) -> str:
        """Name of the cluster: lower case, digits and dashes, as Kubernetes and clouds need it."""
        name = "".join(letter if letter.isalnum() else "-" for letter in self.study.lower())
        return f"hms-ray-{name}"[:LONGEST_NAME].strip("-")

    @property
    def results(self) -> str:
        """Folder of all studies."""
        return f"{self.storage}/results"

    @property
    def venv(self) -> str:
        """Virtual environment of all machines; images have their own."""
        return f"{self.storage}/venv"

    @property
    def machines(self) -> int:
        """Number of machines that train."""
        return self.gpus // self.gpus_per_machine

    @property
    def groups(self) -> int:
        """Worker groups, each of which trains one fold at a time."""
        return self.gpus // self.workers_per_fold

    @property
    def cpus_per_machine(self) -> int:
        """CPUs of each machine that trains."""
        return self.cpus_per_worker * self.gpus_per_machine

    @property
    def memory_gib(self) -> int:
        """Memory of each machine that trains."""
        return MEMORY_PER_GPU_GIB * self.gpus_per_machine

    def sweep(self, *, autoscale: bool) -> tuple[str, ...]:
        """The words of the command that a cluster runs on its head.

        Args:
            autoscale: whether the cluster starts machines when folds wait for them.
        """
        settings = {
            "workers": self.workers_per_fold,
            "cpus_per_worker": self.cpus_per_worker,
            "gpus_per_worker": 1,
            "max_groups": self.groups,
            **({"autoscale": "true"} if autoscale else {}),
        }
        return (
            *("hms-ray", "sweep", self.space, "--data", self.data, "--results", self.results),
            *("--study", self.study, "--address", "auto", "--exit-zero-when-final"),
            *(
                word
                for name, value in settings.items()
                for word in ("--set", f"resources.{name}={value}")
            ),
        )

    def launch(self) -> str:
        """The command that makes the file."""
        own: list[object] = ["launch", self.target, "--space", self.space, "--gpus", self.gpus]
        options: dict[str, tuple[object, object]] = {
            "--workers-per-fold": (self.workers_per_fold, 1),
            "--gpus-per-machine": (self.gpus_per_machine, self.workers_per_fold),
            "--storage": (self.storage, STORAGE),
            "--data": (self.data, f"{self.storage}/data"),
            "--study": (self.study, PurePosixPath(self.space).stem),
        }
        for name, (value, default) in options.items():
            own += [] if value == default else [name, value]
        return f"{command_line(*own, *(['--spot'] if self.spot else []))} > {self.file}"


def make_plan(
    target: str,
    *,
    space: str,
    gpus: int,
    workers_per_fold: int = 1,
    gpus_per_machine: int | None = None,
    spot: bool = False,
    storage: str = STORAGE,
    data: str | None = None,
    study: str | None = None,
) -> Plan:
    """Checks what a launch file is made of; see ``Plan``.

    Args:
        target: kind of file.
        space: shipped name, or absolute path that is the same on all machines.
        gpus: largest number of GPUs at once.
        workers_per_fold: must divide ``gpus_per_machine``.
        gpus_per_machine: must divide ``gpus``. Default: ``workers_per_fold``.
        spot: see ``Plan``.
        storage: absolute path.
        data: absolute path. Default: ``data`` in ``storage``.
        study: default: name of the space.

    Raises:
        ConfigError: if the space is unknown or not valid, a number does not fit the others,
            the machines cannot be spot ones, or a path is relative or has characters that a
            shell would change.
        StudyError: if the name of the study cannot be that of a folder.
    """
    given = {
        "--gpus": gpus,
        "--workers-per-fold": workers_per_fold,
        "--gpus-per-machine": gpus_per_machine,
    }
    for name, number in given.items():
        if number is not None and number < 1:
            raise ConfigError(f"{name} must be at least 1", got=number, fix=f"Give {name} 4.")
    per_machine = workers_per_fold if gpus_per_machine is None else gpus_per_machine
    _require_divides("--workers-per-fold", workers_per_fold, "the GPUs of a machine", per_machine)
    _require_divides("the GPUs of a machine", per_machine, "--gpus", gpus)
    if spot and target in NO_SPOT:
        raise ConfigError(
            "--spot needs machines that a cloud or Kubernetes provides",
            got=target,
            fix="Omit --spot.",
        )
    storage = _plain_path("--storage", storage)
    path = find_space(space)
    resources = load_space(path).resources
    study = checked_name(study or path.stem)
    if not _PLAIN_NAME.fullmatch(study):
        raise ConfigError(
            "the name of a launched study must have only letters, digits, dots, dashes and _",
            got=study,
            fix="Use another name: --study NAME.",
        )
    return Plan(
        target=target,
        space=_name_everywhere(space, path),
        study=study,
        gpus=gpus,
        workers_per_fold=workers_per_fold,
        gpus_per_machine=per_machine,
        cpus_per_worker=max(1, int(resources.cpus_per_worker)),
        spot=spot,
        storage=storage,
        data=_plain_path("--data", f"{storage}/data" if data is None else data),
    )


def _require_divides(name: str, number: int, other: str, total: int) -> None:
    if total % number:
        raise ConfigError(
            f"{name} must divide {other}",
            got=f"{number} and {total}",
            fix="Change --gpus, --workers-per-fold or --gpus-per-machine.",
        )


def _plain_path(option: str, path: str) -> str:
    if not _PLAIN_PATH.fullmatch(path) or ".." in PurePosixPath(path).parts:
        raise ConfigError(
            f"{option} must be an absolute path of letters, digits, dots, dashes and _",
            got=path,
            fix=f"Give the path that all machines see: {option} {STORAGE}.",
        )
    return str(PurePosixPath(path))


def _name_everywhere(space: str, path: Path) -> str:
    """A word by which every machine finds the space."""
    shipped = FOLDER.resolve()
    if path.resolve().is_relative_to(shipped):
        return path.resolve().relative_to(shipped).with_suffix("").as_posix()
    return _plain_path("--space", space)
