"""Launch files of ``ray up``: AWS, Google Cloud, and a list of machines reached by ssh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hms_ray.distributed.launch.file_text import (
    Machine,
    continued,
    resource_table,
    storage_lines,
    yaml_file,
)
from hms_ray.distributed.launch.plan import Plan
from hms_ray.errors import ConfigError

IDLE_MINUTES: Final = 5

# GPUs -> machine. All have NVIDIA L4, which computes in bfloat16.
AWS_MACHINES: Final = {
    1: Machine("g6.2xlarge", 8, 32),
    4: Machine("g6.12xlarge", 48, 192),
    8: Machine("g6.48xlarge", 192, 768),
}
GCP_MACHINES: Final = {
    1: Machine("g2-standard-8", 8, 32),
    2: Machine("g2-standard-24", 24, 96),
    4: Machine("g2-standard-48", 48, 192),
    8: Machine("g2-standard-96", 96, 384),
}


def aws(plan: Plan) -> str:
    """A cluster of EC2 machines with a file system of EFS."""
    machine = _machine(plan, AWS_MACHINES, "AWS")
    mount = (
        f"mountpoint -q {plan.storage} || sudo mount -t nfs4 -o nfsvers=4.1,rsize=1048576,"
        "wsize=1048576,hard,timeo=600,retrans=2,noresvport "
        f"FILE_SYSTEM_ID.efs.REGION.amazonaws.com:/ {plan.storage}"
    )
    common = {
        "ImageId": "AMI_ID",
        "SubnetIds": ["SUBNET_ID"],
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 200}}],
    }
    spot = {"InstanceMarketOptions": {"MarketType": "spot"}} if plan.spot else {}
    data = {
        **_shared(plan, "boto3", mount),
        "provider": {"type": "aws", "region": "REGION", "cache_stopped_nodes": False},
        **_machines(
            plan,
            machine,
            head={"InstanceType": "m6i.xlarge", **common},
            worker={"InstanceType": machine.name, **common, **spot},
        ),
    }
    lines = [
        *_top(plan, "AWS", machine),
        "",
        "Fill in the words in capitals:",
        "  REGION, SUBNET_ID: of the file system",
        "  AMI_ID: Ubuntu 24.04 with NVIDIA's driver, such as AWS's Deep Learning Base AMI",
        "  FILE_SYSTEM_ID: of an EFS file system that lets the cluster's security group in (NFS)",
        "The security group that Ray makes lets in ssh, and all ports between its machines.",
    ]
    return yaml_file(lines, data)


def gcp(plan: Plan) -> str:
    """A cluster of Compute Engine machines with a file system of Filestore."""
    machine = _machine(plan, GCP_MACHINES, "Google Cloud")
    mount = (
        f"mountpoint -q {plan.storage} || sudo mount -t nfs -o hard,timeo=600,retrans=3 "
        f"FILESTORE_ADDRESS:/FILESTORE_SHARE {plan.storage}"
    )
    disk = {
        "boot": True,
        "autoDelete": True,
        "type": "PERSISTENT",
        "initializeParams": {"diskSizeGb": 200, "sourceImage": "SOURCE_IMAGE"},
    }
    # A machine with GPUs cannot be moved to another host while it runs.
    scheduling: dict[str, Any] = {"onHostMaintenance": "TERMINATE"}
    if plan.spot:
        scheduling |= {
            "provisioningModel": "SPOT",
            "instanceTerminationAction": "DELETE",
            "automaticRestart": False,
        }
    data = {
        **_shared(plan, "google-api-python-client", mount),
        "provider": {
            "type": "gcp",
            "region": "REGION",
            "availability_zone": "ZONE",
            "project_id": "PROJECT_ID",
        },
        **_machines(
            plan,
            machine,
            head={"machineType": "n2-standard-4", "disks": [disk]},
            worker={"machineType": machine.name, "disks": [disk], "scheduling": scheduling},
        ),
    }
    lines = [
        *_top(plan, "Google Cloud", machine),
        "",
        "Fill in the words in capitals:",
        "  PROJECT_ID, REGION, ZONE: of the Filestore instance",
        "  SOURCE_IMAGE: Ubuntu 24.04 with NVIDIA's driver, such as a Deep Learning VM image",
        "  FILESTORE_ADDRESS, FILESTORE_SHARE: of the instance",
        "The firewall must let in ssh alone, and all ports between the machines of the network.",
    ]
    return yaml_file(lines, data)


def machines(plan: Plan) -> str:
    """A cluster on machines that run already and are reached by ssh."""
    ray = f"{plan.venv}/bin/ray"
    head, *workers = [f"10.0.0.{1 + k}" for k in range(plan.machines)]
    data = {
        "cluster_name": plan.cluster,
        "provider": {"type": "local", "head_ip": head, "worker_ips": workers},
        "auth": {"ssh_user": "ubuntu", "ssh_private_key": "~/.ssh/id_ed25519"},
        "idle_timeout_minutes": 100_000,
        "file_mounts": {"~/.ray/auth_token": "~/.ray/auth_token"},
        "setup_commands": [
            "chmod 600 ~/.ray/auth_token",
            f"test -x {plan.venv}/bin/hms-ray",
        ],
        "head_start_ray_commands": [
            f"{ray} stop",
            _started(plan, f"--head --port=6379 --node-ip-address={head}", head=True),
        ],
        "worker_start_ray_commands": [
            f"{ray} stop",
            _started(plan, '--address="$RAY_HEAD_IP:6379"'),
        ],
    }
    lines = [
        *_top(plan, "a list of machines", None),
        "",
        "Fill in head_ip (twice), worker_ips, ssh_user and ssh_private_key. Addresses must be",
        "of a private network: Ray listens on them, and who knows the token can run code.",
        "The head trains too. All machines stay in the cluster, also if idle.",
    ]
    return yaml_file(lines, data)


def _top(plan: Plan, where: str, machine: Machine | None) -> list[str]:
    """Comments that the three files share.

    Args:
        plan: of the file.
        where: kind of machines.
        machine: of a cloud, which starts and stops them; None for machines that run already.
    """
    autoscale = machine is not None
    sweep = continued(plan.sweep(autoscale=autoscale))
    how = "mounted by the commands below" if autoscale else "on all machines"
    return [
        f"A Ray cluster on {where}, made with",
        f"  {plan.launch()}",
        "Start it from the repository, run the sweep on its head, watch it, remove it:",
        "  export RAY_AUTH_MODE=token",
        "  ray get-auth-token --generate > /dev/null    # once; kept in ~/.ray/auth_token",
        f"  ray up --yes {plan.file}",
        f"  ray exec --tmux {plan.file} \\",
        f'    "{plan.venv}/bin/{sweep[0]}',
        *(f"    {line}" for line in sweep[1:-1]),
        f'    {sweep[-1]}"',
        f"  ray attach --tmux {plan.file}",
        f"  ray down --yes {plan.file}",
        "A sweep that was stopped or lost continues with the same command.",
        "",
        *resource_table(plan, autoscale=autoscale, head=autoscale, machine=machine),
        "",
        *storage_lines(plan, how, venv=not autoscale),
    ]


def _machine(plan: Plan, known: Mapping[int, Machine], cloud: str) -> Machine:
    """The machine with the GPUs of a plan.

    Raises:
        ConfigError: if the cloud has none with this number of GPUs, or it has too few CPUs.
    """
    if plan.gpus_per_machine not in known:
        raise ConfigError(
            f"{cloud} has machines with {', '.join(map(str, known))} GPUs of this kind",
            got=plan.gpus_per_machine,
            fix="Use --gpus-per-machine with one of these numbers.",
        )
    machine = known[plan.gpus_per_machine]
    if plan.cpus_per_machine > machine.cpus:
        raise ConfigError(
            "the CPUs of all workers must fit on a machine",
            got=f"{plan.cpus_per_machine} on {machine.name} with {machine.cpus}",
            fix="Lower resources.cpus_per_worker of the space.",
        )
    return machine


def _shared(plan: Plan, client: str, mount: str) -> dict[str, Any]:
    """What a cluster of any cloud has: files, set-up and start of Ray."""
    ray = f"{plan.venv}/bin/ray"
    return {
        "cluster_name": plan.cluster,
        "max_workers": plan.machines,
        "idle_timeout_minutes": IDLE_MINUTES,
        "auth": {"ssh_user": "ubuntu"},
        "file_mounts": {"~/.ray/auth_token": "~/.ray/auth_token", "~/hms_ray": "."},
        "rsync_exclude": ["/.git", "/.venv", "/results", "/data", "**/__pycache__"],
        "initialization_commands": [
            "sudo apt-get update -qq",
            "sudo apt-get install -y -qq nfs-common python3-venv tmux",
            f"sudo mkdir -p {plan.storage}",
            mount,
            f"sudo chown ubuntu: {plan.storage}",
        ],
        "setup_commands": ["chmod 600 ~/.ray/auth_token"],
        # Workers start after the head and find the environment on the shared file system.
        "head_setup_commands": [
            f"test -x {plan.venv}/bin/pip || python3 -m venv {plan.venv}",
            f"{plan.venv}/bin/pip install --quiet -c ~/hms_ray/constraints.txt "  # noqa: ISC004
            f'"$HOME/hms_ray[cluster]" {client}',
        ],
        "worker_setup_commands": [f"test -x {plan.venv}/bin/hms-ray"],
        "head_start_ray_commands": [
            f"{ray} stop",
            _started(plan, "--head --port=6379", head=True),
        ],
        "worker_start_ray_commands": [
            f"{ray} stop",
            _started(plan, '--address="$RAY_HEAD_IP:6379"'),
        ],
    }


def _machines(
    plan: Plan, machine: Machine, head: dict[str, Any], worker: dict[str, Any]
) -> dict[str, Any]:
    """The kinds of machines of a cluster in a cloud."""
    return {
        "head_node_type": "head",
        "available_node_types": {
            # Nothing that trains runs beside the study process.
            "head": {"resources": {"CPU": 0}, "node_config": head},
            "worker": {
                "min_workers": 0,
                "max_workers": plan.machines,
                "resources": {"CPU": machine.cpus, "GPU": plan.gpus_per_machine},
                "node_config": worker,
            },
        },
    }


def _started(plan: Plan, options: str, *, head: bool = False) -> str:
    """The command that starts Ray on a machine."""
    variables = "RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_JOB_STOP_WAIT_TIME_S=30"
    end = ""
    if head:
        # The dashboard is for ssh tunnels alone.
        end = " --dashboard-host=127.0.0.1 --autoscaling-config=~/ray_bootstrap_config.yaml"
    return (
        f"ulimit -n 65536; {variables} HF_HOME={plan.storage}/huggingface "
        f"{plan.venv}/bin/ray start {options}{end}"
    )
