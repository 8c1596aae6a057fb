"""The command that tries out a shared folder: check-storage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check_storage(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder that machines share.")],
) -> int:
    """Try out what a shared folder needs, with two processes; run it on every machine.

    Writes a few small files and removes them.
    """
    from hms_ray.storage.shared_path import check_shared_path

    needs = check_shared_path(path)
    width = max(len(need.name) for need in needs)
    for need in needs:
        state = "ok" if need.fault is None else "missing" if need.required else "without"
        end = "" if need.fault is None else f": {need.fault}"
        print(f"{state:7}  {need.name:{width}}  {need.purpose}{end}")
    missing = [need.name for need in needs if need.fault is not None and need.required]
    if missing:
        print(f"{path} is not fit for a cluster: {', '.join(missing)} missing.")
        return 1
    print(f"{path} has what a cluster needs, as far as one machine can tell.")
    return 0
