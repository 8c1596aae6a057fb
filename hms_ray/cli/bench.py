"""The command that estimates the cost of a search: bench."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from hms_ray.cli.next_command import print_next
from hms_ray.cli.options import (
    RESULTS,
    Address,
    Data,
    FoldTable,
    PackDir,
    Results,
    Settings,
    option,
)

if TYPE_CHECKING:
    from hms_ray.experiment.bench_command import Machines


def bench(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Experiment or search space: a YAML file or a shipped name."
        ),
    ],
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
    from hms_ray.experiment.bench_command import bench as run_bench
    from hms_ray.experiment.bench_command import check_this_machine, this_machine
    from hms_ray.study.cost import ASSUMED_KEPT_SHARE, BenchEstimate, kept_share, write_bench

    path = find_space(file)
    space = load_space(path, settings or [])
    known = kept_share(study, path.stem, results)
    share, source = known or (ASSUMED_KEPT_SHARE, "an assumption: no study with pruned trials")
    machines: Machines = this_machine
    if address is None:
        check_this_machine(space.resources)
    else:
        from hms_ray.distributed.bench_tasks import measure_on_cluster
        from hms_ray.distributed.cluster import check_connection

        check_connection(address)
        machines = partial(measure_on_cluster, address=address)
    seconds = run_bench(
        space,
        path.stem,
        data,
        results,
        kept_share=share,
        kept_source=source,
        fold_table=folds,
        pack_dir=pack_dir,
        machines=machines,
    )
    made = datetime.now(UTC).isoformat(timespec="seconds")
    write_bench(results, space, BenchEstimate(seconds, known[0] if known else 1.0, made))
    words: list[object] = ["sweep" if space.parameters else "train", file, "--data", data]
    for name, value in (("--pack-dir", pack_dir), ("--folds", folds), ("--address", address)):
        words += [] if value is None else [name, value]
    words += [word for setting in settings or () for word in ("--set", setting)]
    print_next(*words, results=results)
