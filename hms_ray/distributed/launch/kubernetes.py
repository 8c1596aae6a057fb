"""Launch files of KubeRay: a RayJob runs one sweep, a RayCluster waits for submitted ones."""

from __future__ import annotations

from typing import Any, Final

from hms_ray import __version__
from hms_ray.distributed.launch.file_text import (
    continued,
    resource_table,
    storage_lines,
    yaml_file,
)
from hms_ray.distributed.launch.plan import (
    HEAD_CPUS,
    HEAD_MEMORY_GIB,
    RAY_VERSION,
    RESTARTS,
    Plan,
)
from hms_ray.text import command_line

IMAGE: Final = f"registry.example.com/hms-ray:{__version__}"
CLAIM: Final = "hms-ray-shared"
USER: Final = 1000
"""Of the image; see ``cluster/Dockerfile``."""

_IDLE_S: Final = 300
_KEPT_S: Final = 300
_STAYS: Final = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""Keeps Kubernetes from moving pods to fill its nodes better; Ray's autoscaler ends idle ones."""
_SPOT: Final = {
    "cloud.google.com/gke-spot": "true",
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
    "kubernetes.azure.com/scalesetpriority": "spot",
}
"""Labels of spot nodes on Google's, Amazon's and Microsoft's Kubernetes; taints have the same."""


def rayjob(plan: Plan) -> str:
    """A RayJob: makes a cluster, runs the sweep, removes the cluster."""
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": plan.cluster},
        "spec": {
            "entrypoint": command_line(*plan.sweep(autoscale=True)[1:]),
            "backoffLimit": RESTARTS,
            "submitterConfig": {"backoffLimit": 0},
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": _KEPT_S,
            "submitterPodTemplate": {
                "metadata": {"annotations": _STAYS},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "securityContext": _pod_security(),
                    "containers": [_container("ray-job-submitter", cpus=1, memory_gib=1)],
                },
            },
            "rayClusterSpec": _cluster(plan),
        },
    }
    lines = [
        "A RayJob of KubeRay (1.6 or newer): one sweep on a cluster of its own, made with",
        f"  {plan.launch()}",
        "Start it, follow it, stop it:",
        f"  kubectl create -f {plan.file}",
        f"  kubectl logs --follow job/{plan.cluster}",
        f"  kubectl delete rayjob {plan.cluster}",
        "",
        *resource_table(plan, autoscale=True),
        "",
        *_needs(plan),
        "",
        "A sweep that failed or lost its head starts again on a new cluster, at most",
        f"{RESTARTS} times (backoffLimit), and continues. Outcomes that a new start cannot change",
        "end the job with status 0 (--exit-zero-when-final); the study's log has the reason.",
        "`ray job stop` gives the study RAY_JOB_STOP_WAIT_TIME_S seconds to end.",
    ]
    return yaml_file(lines, job)


def raycluster(plan: Plan) -> str:
    """A RayCluster that stays; sweeps are submitted to it as jobs."""
    cluster = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": plan.cluster},
        "spec": _cluster(plan),
    }
    secret = f"kubectl get secret {plan.cluster} -o jsonpath='{{.data.auth_token}}'"
    lines = [
        "A RayCluster of KubeRay (1.6 or newer) that stays, made with",
        f"  {plan.launch()}",
        "Start it, submit the sweep as a job, remove it:",
        f"  kubectl create -f {plan.file}",
        f"  kubectl port-forward service/{plan.cluster}-head-svc 8265:8265    # in another shell",
        "  export RAY_AUTH_MODE=token",
        f"  RAY_AUTH_TOKEN=$({secret} | base64 -d)",
        "  export RAY_AUTH_TOKEN",
        "  ray job submit --address http://localhost:8265 --no-wait -- \\",
        *(f"    {line}" for line in continued(plan.sweep(autoscale=True))),
        f"  kubectl delete raycluster {plan.cluster}",
        "",
        *resource_table(plan, autoscale=True),
        "",
        *_needs(plan),
        "",
        "If the head is lost, submit the same command again: it continues the study.",
        "`ray job stop` gives the study RAY_JOB_STOP_WAIT_TIME_S seconds to end.",
    ]
    return yaml_file(lines, cluster)


def _needs(plan: Plan) -> list[str]:
    claim = f"a volume claim {CLAIM} with access mode ReadWriteMany"
    return [
        *storage_lines(plan, claim),
        f"Image: {IMAGE}, built from cluster/Dockerfile; fill in",
        "  your registry.",
        "Access: KubeRay makes a token (authOptions) and gives it to the pods. It does not",
        "  encrypt; keep the service of the head inside the cluster. Other pods are kept out by",
        "  networkPolicy: {mode: DenyAllIngress}, with KubeRay 1.7's feature gate",
        "  RayClusterNetworkPolicy.",
    ]


def _cluster(plan: Plan) -> dict[str, Any]:
    return {
        "rayVersion": RAY_VERSION,
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": _IDLE_S,
            "resources": _resources(cpus=1, memory_gib=1),
            "securityContext": _container_security(),
        },
        "headGroupSpec": {
            # Nothing that trains runs beside the study process.
            "rayStartParams": {"num-cpus": "0", "num-gpus": "0"},
            "template": {
                "metadata": {"annotations": _STAYS},
                "spec": {
                    **_pod(plan),
                    "containers": [
                        {
                            **_node("ray-head", plan, HEAD_CPUS, HEAD_MEMORY_GIB),
                            "ports": [
                                {"name": "gcs", "containerPort": 6379},
                                {"name": "dashboard", "containerPort": 8265},
                                {"name": "client", "containerPort": 10001},
                            ],
                        }
                    ],
                },
            },
        },
        "workerGroupSpecs": [
            {
                "groupName": "gpu",
                "replicas": 0,
                "minReplicas": 0,
                "maxReplicas": plan.machines,
                "rayStartParams": {},
                "template": {
                    "metadata": {"annotations": _STAYS},
                    "spec": {
                        **_pod(plan),
                        # Only the autoscaler, on the head, calls Kubernetes.
                        "automountServiceAccountToken": False,
                        **_placed(plan),
                        "containers": [
                            _node(
                                "ray-worker",
                                plan,
                                plan.cpus_per_machine,
                                plan.memory_gib,
                                gpus=plan.gpus_per_machine,
                            )
                        ],
                    },
                },
            }
        ],
    }


def _pod(plan: Plan) -> dict[str, Any]:
    return {
        # A pod is never started again in place: Ray takes it for another node.
        "restartPolicy": "Never",
        "securityContext": _pod_security(),
        "volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": CLAIM}}],
    }


def _placed(plan: Plan) -> dict[str, Any]:
    """Where pods with GPUs may run."""
    tolerations: list[dict[str, str]] = [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    if not plan.spot:
        return {"tolerations": tolerations}
    tolerations += [
        {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}
        for key, value in _SPOT.items()
    ]
    terms = [
        {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}
        for key, value in _SPOT.items()
    ]
    preferred = [{"weight": 100, "preference": term} for term in terms]
    return {
        "tolerations": tolerations,
        "affinity": {
            "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}
        },
    }


def _node(name: str, plan: Plan, cpus: int, memory_gib: int, gpus: int = 0) -> dict[str, Any]:
    """The container of one Ray node."""
    variables = {
        "RAY_JOB_STOP_WAIT_TIME_S": "30",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Pretrained weights are downloaded once.
        "HF_HOME": f"{plan.storage}/huggingface",
    }
    return {
        **_container(name, cpus=cpus, memory_gib=memory_gib, gpus=gpus),
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        "volumeMounts": [{"name": "shared", "mountPath": plan.storage}],
    }


def _container(name: str, *, cpus: int, memory_gib: int, gpus: int = 0) -> dict[str, Any]:
    return {
        "name": name,
        "image": IMAGE,
        "resources": _resources(cpus=cpus, memory_gib=memory_gib, gpus=gpus),
        "securityContext": _container_security(),
    }


def _resources(*, cpus: int, memory_gib: int, gpus: int = 0) -> dict[str, Any]:
    amounts = {"cpu": str(cpus), "memory": f"{memory_gib}Gi"}
    if gpus:
        amounts["nvidia.com/gpu"] = str(gpus)
    return {"limits": amounts, "requests": amounts}


def _pod_security() -> dict[str, Any]:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        # Otherwise Kubernetes may change the group of every file of the study at each start.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container_security() -> dict[str, Any]:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
