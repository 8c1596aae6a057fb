"""Launch files against the schemas of KubeRay and of ``ray up``."""

from __future__ import annotations

import json
import os
from copy import deepcopy
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.launch_files import data_of

KINDS = {"kuberay": "RayJob", "raycluster": "RayCluster"}


@cache
def crd_schema(kind: str) -> dict[str, Any]:
    """The schema of ``ray.io/v1`` of a kind; a field that it does not name is an error."""
    folder = os.environ.get("HMS_KUBERAY_CRDS")
    if folder is None:
        pytest.skip("HMS_KUBERAY_CRDS does not name the folder of KubeRay's schemas")
    # libyaml reads the megabyte in a second.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with (Path(folder) / f"ray.io_{kind.lower()}s.yaml").open(encoding="utf-8") as file:
        definition = yaml.load(file, loader)
    assert definition["spec"]["names"]["kind"] == kind
    (version,) = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return closed(schema)


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema in which an object has no other fields than those it names."""
    schema = dict(schema)
    if "properties" in schema:
        schema["properties"] = {
            # Kubernetes itself knows the fields of metadata.
            name: one if name == "metadata" and one == {"type": "object"} else closed(one)
            for name, one in schema["properties"].items()
        }
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
    if isinstance(schema.get("items"), dict):
        schema["items"] = closed(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = closed(schema["additionalProperties"])
    return schema


def faults(schema: dict[str, Any], data: Any) -> list[str]:
    found = Draft202012Validator(schema).iter_errors(data)
    return [f"{'.'.join(map(str, fault.absolute_path))}: {fault.message[:200]}" for fault in found]


@pytest.mark.parametrize("target", KINDS)
def test_kubernetes_files_follow_kuberays_schema(target: str) -> None:
    data = data_of(target)
    assert (data["apiVersion"], data["kind"]) == ("ray.io/v1", KINDS[target])
    assert not faults(crd_schema(KINDS[target]), data)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("spec", "authOptions", "mode"), "tokens"),
        (("spec", "authOptions", "moed"), "token"),
        (("spec", "workerGroupSpecs", 0, "maxReplicas"), "4"),
        (("spec", "workerGroupSpecs", 0, "template", "spec", "tolerationz"), []),
        (("spec", "headGroupSpec", "template", "spec", "containers", 0, "image"), 1),
        (("spec", "backoffLimit"), 3),
    ],
)
def test_the_schema_finds_a_slip(place: tuple[Any, ...], value: Any) -> None:
    data = deepcopy(data_of("raycluster"))
    *above, last = place
    part = data
    for key in above:
        part = part[key]
    part[last] = value
    assert len(faults(crd_schema("RayCluster"), data)) == 1


@cache
def ray_schema() -> dict[str, Any]:
    spec = find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    file = Path(spec.origin).parent / "autoscaler" / "ray-schema.json"
    schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return schema


@pytest.mark.parametrize("target", ["aws", "gcp", "machines"])
def test_ray_up_files_follow_rays_schema(target: str) -> None:
    data = data_of(target)
    assert not faults(ray_schema(), data)
    assert faults(ray_schema(), {**data, "min_worker": 1})


@pytest.mark.parametrize("target", ["aws", "gcp", "machines"])
def test_ray_completes_ray_up_files_without_changing_them(target: str) -> None:
    """``ray up`` adds its defaults and checks the result before it asks for machines."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    data = data_of(target)
    complete = prepare_config(deepcopy(data))
    validate_config(complete)
    for name in ("setup_commands", "head_start_ray_commands", "file_mounts"):
        assert complete[name] == data[name], name
    if target != "machines":
        head = complete["available_node_types"]["head"]
        assert head["resources"] == {"CPU": 0}
