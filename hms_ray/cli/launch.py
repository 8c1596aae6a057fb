"""The command that prints launch files for clusters: launch."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from hms_ray.cli.options import flag, option

Target = Literal["kuberay", "raycluster", "slurm", "aws", "gcp", "machines"]


def launch(
    target: Annotated[
        Target,
        typer.Argument(
            metavar="TARGET",
            help="kuberay (RayJob), raycluster, slurm, or for `ray up`: aws, gcp, machines.",
        ),
    ],
    space: Annotated[
        str,
        option(
            "Search space: the name of a shipped one, or an absolute path that all machines see.",
            "NAME",
        ),
    ],
    gpus: Annotated[int, option("Largest number of GPUs at once.", "N")],
    workers_per_fold: Annotated[
        int, option("Workers that train one fold together, each with one GPU.", "W")
    ] = 1,
    gpus_per_machine: Annotated[
        int | None, option("GPUs of each machine that trains.", "G", default="W")
    ] = None,
    spot: Annotated[
        bool, flag("--spot", "Train on spot machines, which may be taken away at any time.")
    ] = False,
    storage: Annotated[str, option("Folder that all machines share.", "PATH")] = "/shared",
    data: Annotated[
        str | None, option("Competition folder on all machines.", "DIR", default="PATH/data")
    ] = None,
    study: Annotated[
        str | None, option("Name of the study.", "NAME", default="name of the space")
    ] = None,
) -> None:
    """Print a file that starts a sweep on Kubernetes, Slurm, a cloud or a list of machines.

    Redirect it to a file; its first lines have the commands that use it.
    """
    from hms_ray.distributed.launch.targets import launch_file

    text = launch_file(
        target,
        space=space,
        gpus=gpus,
        workers_per_fold=workers_per_fold,
        gpus_per_machine=gpus_per_machine,
        spot=spot,
        storage=storage,
        data=data,
        study=study,
    )
    print(text, end="")
