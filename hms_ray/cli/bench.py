"""The command that estimates the cost of a search: bench."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from hms_ray.cli.next_command import print_next, same_data
from hms_ray.cli.options import (
    RESULTS,
    Address,
    Data,
    File,
    FoldTable,
    PackDir,
    Results,
    Settings,
    option,
)

if TYPE_CHECKING:
    from hms_ray.config.space import ResourcesConfig
    from hms_ray.experiment.bench_command import Machines


def bench(
    file: File,
    data: Data,
    settings: Settings = None,
    results: Results = RESULTS,
    pack_dir: PackDir = None,
    folds: FoldTable = None,
    study: Annotated[
        str | None,
        option(
            "Study whose pruned trials give the share of folds that is trained.",
            "NAME",
            default="FILE without .yaml, if it exists",
        ),
    ] = None,
    address: Address = None,
) -> None:
    """Train a few steps of a space and print its cost: images per second, memory, hours."""
    from hms_ray.config.loading import load_space
    from hms_ray.config.shipped import find_space
    from hms_ray.study.bench_estimate import bench_space

    path = find_space(file)
    space = load_space(path, settings or [])
    bench_space(
        space,
        path.stem,
        data,
        results,
        study=study,
        fold_table=folds,
        pack_dir=pack_dir,
        machines=_machines(address, space.resources),
    )
    command = "sweep" if space.parameters else "train"
    again = same_data(command, file, data, settings, pack_dir, folds, address)
    print_next(*again, results=results)


def _machines(address: str | None, resources: ResourcesConfig) -> Machines:
    """What measures on this machine or on a cluster, which are checked."""
    from hms_ray.experiment.bench_command import check_this_machine, this_machine

    if address is None:
        check_this_machine(resources)
        return this_machine
    from hms_ray.distributed.bench_tasks import measure_on_cluster
    from hms_ray.distributed.cluster import check_connection

    check_connection(address)
    return partial(measure_on_cluster, address=address)
