"""Launch file of Slurm: a batch script that runs one sweep on all nodes of its job."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Final

from hms_ray.distributed.launch.file_text import (
    comment,
    continued,
    resource_table,
    storage_lines,
)
from hms_ray.distributed.launch.plan import RESTARTS, Plan
from hms_ray.text import command_line

_SCRIPT: Final = Path(__file__).with_name("slurm.sh")


class _Script(Template):
    """A shell script has many dollars of its own."""

    delimiter = "%%"


def slurm(plan: Plan) -> str:
    """A script for ``sbatch``."""
    lines = [
        "A sweep on Slurm, made with",
        f"  {plan.launch()}",
        "Start it, stop it for good:",
        f"  sbatch {plan.file}    # with --partition, --account, --time as your cluster needs",
        f"  {command_line('stop', plan.study, '--results', plan.results)} && scancel JOB",
        "",
        *resource_table(plan, autoscale=False, head=False),
        "The first node runs the study process too. Nodes are not shared with other jobs:",
        "Ray's programs of all your jobs on a node would be stopped together.",
        "",
        *storage_lines(plan, "on all nodes", venv=True),
        "Access: a token of the job's own. It does not encrypt; the network of the nodes must",
        "  be closed to strangers.",
    ]
    return _Script(_SCRIPT.read_text(encoding="utf-8")).substitute(
        study=plan.study,
        machines=plan.machines,
        gpus_per_machine=plan.gpus_per_machine,
        cpus_per_machine=plan.cpus_per_machine,
        storage=plan.storage,
        restarts=RESTARTS,
        header=comment(lines).rstrip("\n"),
        sweep="\n".join(continued(plan.sweep(autoscale=False))),
    )
