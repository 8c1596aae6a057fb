"""Launch files: what they ask for, what they run, and what the command refuses."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from hms_ray.cli.main import main
from hms_ray.config.loading import load_space
from hms_ray.config.shipped import find_space
from hms_ray.distributed.launch.plan import make_plan
from hms_ray.distributed.launch.targets import TARGETS, launch_file
from hms_ray.errors import ConfigError, StudyError
from tests.command_line import parse
from tests.launch_files import (
    EXAMPLES,
    YAML_EXAMPLES,
    commands_of,
    comments_of,
    data_of,
    shell_lines,
    text_of,
    texts_in,
)
from tests.refused import refusal

SPACE = "loss_norm_threshold"


@pytest.mark.parametrize("target", EXAMPLES)
def test_example_is_what_its_own_command_prints(
    target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (words,) = [words for words in commands_of(target, "hms-ray") if words[0] == "launch"]
    assert f"> cluster/{EXAMPLES[target].name}" in comments_of(target)
    assert main(words) == 0
    assert capsys.readouterr().out == text_of(target)


@pytest.mark.parametrize("target", EXAMPLES)
def test_example_names_storage_resources_and_command(target: str) -> None:
    comments = comments_of(target)
    assert "Shared storage: /shared" in comments
    assert re.search(r"^machine +number +CPUs +memory +GPUs", comments, flags=re.M)
    assert "hms-ray check-storage /shared" in comments


@pytest.mark.parametrize("target", EXAMPLES)
def test_hms_ray_commands_parse(target: str) -> None:
    found = commands_of(target, "hms-ray")
    assert {"launch", "sweep"} <= {words[0] for words in found}
    for words in found:
        parse(words)


def test_gpus_below_one_are_refused() -> None:
    with refusal(ConfigError, "--gpus must be at least 1", fix="Give --gpus 4."):
        make_plan("slurm", space=SPACE, gpus=0)


@pytest.mark.parametrize("target", EXAMPLES)
def test_the_sweep_fits_the_machines(target: str) -> None:
    """The settings of the command are valid, and groups fill the GPUs that are asked for."""
    for words in commands_of(target, "hms-ray"):
        if words[0] != "sweep":
            continue
        settings = [words[k + 1] for k, word in enumerate(words) if word == "--set"]
        resources = load_space(find_space(words[1]), settings).resources
        launched = next(words for words in commands_of(target, "hms-ray") if words[0] == "launch")
        gpus = int(launched[launched.index("--gpus") + 1])
        assert resources.gpus_per_worker == 1
        assert resources.workers * (resources.max_groups or 0) == gpus
        assert "--exit-zero-when-final" in words
        assert words[words.index("--address") + 1] == "auto"


def ray_options(*words: str) -> set[str]:
    """The options of a command of ray."""
    from ray.scripts.scripts import cli

    command: Any = cli
    for word in words:
        command = command.get_command(click.Context(command), word)
        assert command is not None, words
    return {name for option in command.params for name in option.opts}


@pytest.mark.parametrize("target", EXAMPLES)
def test_ray_commands_have_these_options(target: str) -> None:
    for words in commands_of(target, "ray"):
        name = words[: 2 if words[0] == "job" else 1]
        rest = words[: words.index("--")] if "--" in words else words
        given = {word.split("=")[0] for word in rest if word.startswith("--")}
        known = ray_options(*name)
        if name == ["symmetric-run"]:
            known |= ray_options("start")
        assert given <= known, words


def test_no_text_of_a_file_is_a_secret() -> None:
    for target in EXAMPLES:
        text = text_of(target)
        assert not re.search(r"(password|secret_key|token)\s*[:=]\s*['\"]?[0-9a-f]{16}", text)
        assert not re.search(r"RAY_AUTH_TOKEN=(?!\$\()", shell_lines(target))
        assert "RAY_AUTH_TOKEN\n" not in text.replace("export RAY_AUTH_TOKEN\n", "")


@pytest.mark.parametrize("target", YAML_EXAMPLES)
def test_yaml_is_read_safely_to_the_same_data(target: str) -> None:
    data = data_of(target)
    assert yaml.safe_load(yaml.safe_dump(data)) == data
    assert "&id" not in text_of(target)


@pytest.mark.parametrize("target", ["kuberay", "raycluster"])
def test_kubernetes_files_are_closed_and_start_from_nothing(target: str) -> None:
    spec = data_of(target)["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"].startswith("2.60.")
    assert cluster["enableInTreeAutoscaling"]
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] == workers["replicas"] == 0
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    pods = [cluster["headGroupSpec"]["template"]["spec"], workers["template"]["spec"]]
    if target == "kuberay":
        pods.append(spec["submitterPodTemplate"]["spec"])
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["restartPolicy"] == "Never"
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
    # The autoscaler, on the head, calls Kubernetes; code of the study elsewhere must not.
    assert [pod.get("automountServiceAccountToken", True) for pod in pods[1:]] == [False] * (
        len(pods) - 1
    )
    for pod in pods[:2]:
        (volume,) = pod["volumes"]
        (mount,) = pod["containers"][0]["volumeMounts"]
        assert (mount["name"], mount["mountPath"]) == (volume["name"], "/shared")
        variables = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
        assert variables["RAY_JOB_STOP_WAIT_TIME_S"] == "30"
    templates = [cluster["headGroupSpec"]["template"], workers["template"]]
    templates += [spec["submitterPodTemplate"]] if target == "kuberay" else []
    for template in templates:
        kept = template["metadata"]["annotations"]
        assert kept["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    limits = pods[1]["containers"][0]["resources"]["limits"]
    assert int(limits["nvidia.com/gpu"]) * workers["maxReplicas"] == 8
    sweep = [words for words in commands_of(target, "hms-ray") if words[0] == "sweep"]
    assert all("resources.autoscale=true" in words for words in sweep)


def test_rayjob_starts_again_on_a_new_cluster_alone() -> None:
    spec = data_of("kuberay")["spec"]
    assert spec["backoffLimit"] > 0
    assert spec["submitterConfig"] == {"backoffLimit": 0}
    assert spec["shutdownAfterJobFinishes"] is True
    assert shlex.split(spec["entrypoint"])[:2] == ["hms-ray", "sweep"]


@pytest.mark.parametrize("target", ["kuberay", "aws", "gcp"])
def test_only_workers_may_be_spot_machines(target: str) -> None:
    def spot_parts(text: str) -> int:
        return len(re.findall(r"spot", "\n".join(texts_in(yaml.safe_load(text))), flags=re.I))

    options = {"space": SPACE, "gpus": 2, "study": "s"}
    plain = launch_file(target, **options)
    spot = launch_file(target, **options, spot=True)
    assert spot_parts(plain) == 0
    assert spot_parts(spot) > 0
    data = yaml.safe_load(spot)
    if target == "kuberay":
        cluster = data["spec"]["rayClusterSpec"]
        head, worker = cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]["template"]
        assert {"key": "cloud.google.com/gke-spot"}.items() <= worker["spec"]["tolerations"][
            1
        ].items()
    else:
        types = data["available_node_types"]
        head, worker = types["head"], types["worker"]
        assert worker["max_workers"] == 2
    assert "spot" not in "\n".join(texts_in(head)).lower()
    assert "spot" in "\n".join(texts_in(worker)).lower()


@pytest.mark.parametrize("target", ["aws", "gcp", "machines"])
def test_ray_up_keeps_the_dashboard_on_loopback_and_tokens_on(target: str) -> None:
    data = data_of(target)
    starts = [data["head_start_ray_commands"][-1], data["worker_start_ray_commands"][-1]]
    assert "--dashboard-host=127.0.0.1" in starts[0]
    for start in starts:
        assert "RAY_AUTH_MODE=token" in start
        assert "0.0.0.0" not in start
    assert data["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


@pytest.mark.parametrize("target", ["aws", "gcp"])
def test_clouds_mount_the_shared_file_system_before_anything_uses_it(target: str) -> None:
    commands = data_of(target)["initialization_commands"]
    (mount,) = [command for command in commands if "mount -t nfs" in command]
    assert mount.startswith("mountpoint -q /shared || ")
    assert mount.endswith(" /shared")


@pytest.mark.parametrize("target", TARGETS)
def test_other_paths_and_numbers_reach_every_file(target: str, tmp_path: Path) -> None:
    file = launch_file(
        target,
        space=SPACE,
        gpus=8,
        workers_per_fold=2,
        gpus_per_machine=4,
        storage="/mnt/big-disk",
        data="/mnt/hms_data",
        study="night",
    )
    assert "/shared" not in file
    for text in ("/mnt/big-disk/results", "/mnt/hms_data", "night", "resources.workers=2"):
        assert text in file
    assert "resources.max_groups=4" in file
    assert "--workers-per-fold 2 --gpus-per-machine 4 --storage /mnt/big-disk" in file
    assert "4 folds at once, 2 GPUs each" in file


def test_own_space_is_named_by_its_path_on_all_machines(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("base: demo\n", encoding="utf-8")
    plan = make_plan("slurm", space=str(own), gpus=1)
    assert plan.space == str(own)
    assert plan.study == "own"
    for space in ("search_spaces/demo.yaml", "./search_spaces/demo.yaml"):
        assert make_plan("slurm", space=space, gpus=1).space == "demo"


def test_a_space_beside_the_command_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.yaml").write_text("base: demo\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with refusal(
        ConfigError,
        "--space must be an absolute path",
        got="own.yaml",
        fix="Give the path that all machines see: --space /shared",
    ):
        make_plan("slurm", space="own.yaml", gpus=1)


@pytest.mark.parametrize(
    ("options", "rule", "got", "fix"),
    [
        ({"gpus": -1}, "--gpus must be at least 1", "-1", "Give --gpus 4."),
        ({"workers_per_fold": -1}, "--workers-per-fold must be at least 1", "-1", "Give"),
        ({"gpus_per_machine": -1}, "--gpus-per-machine must be at least 1", "-1", "Give"),
        (
            {"workers_per_fold": 3},
            "the GPUs of a machine must divide --gpus",
            "3 and 8",
            "Change --gpus,",
        ),
        (
            {"workers_per_fold": 3, "gpus_per_machine": 4},
            "--workers-per-fold must divide the GPUs of a machine",
            "3 and 4",
            "Change --gpus,",
        ),
        ({"storage": "shared"}, "--storage must be an absolute path", "shared", "Give the path"),
        ({"storage": "/a b"}, "--storage must be an absolute path", "/a b", "Give the path"),
        ({"storage": "/a/../b"}, "--storage must be an absolute path", "/a/../b", "Give the"),
        ({"storage": "/a$(ls)"}, "--storage must be an absolute path", "/a$(ls)", "Give the"),
        ({"storage": "/a\nb"}, "--storage must be an absolute path", "/a\nb", "Give the path"),
        ({"data": "data"}, "--data must be an absolute path", "data", "Give the path"),
        ({"study": "a b"}, "the name of a launched study", "a b", "Use another name: --study"),
        ({"space": "dmeo"}, "a configuration file must exist", "did you mean demo?", ""),
    ],
)
def test_bad_input_is_refused(options: dict, rule: str, got: str, fix: str) -> None:
    with refusal(ConfigError, rule, got=got, fix=fix):
        make_plan("slurm", **{"space": SPACE, "gpus": 8} | options)


def test_name_of_a_study_must_be_that_of_a_folder() -> None:
    with refusal(StudyError, "plain folder name", got="'../x'", fix="Use a name without slashes"):
        make_plan("slurm", space=SPACE, gpus=8, study="../x")


def test_a_cloud_without_such_machines_is_refused() -> None:
    with refusal(
        ConfigError,
        "AWS has machines with 1, 4, 8 GPUs of this kind",
        got="2",
        fix="Use --gpus-per-machine",
    ):
        launch_file("aws", space=SPACE, gpus=8, workers_per_fold=2)
    for target in ("slurm", "machines"):
        with refusal(
            ConfigError, "--spot needs machines that a cloud", got=target, fix="Omit --spot."
        ):
            launch_file(target, space=SPACE, gpus=8, spot=True)


def test_a_worker_with_too_many_cpus_for_a_cloud_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("base: demo\nresources: {cpus_per_worker: 9}\n", encoding="utf-8")
    with refusal(
        ConfigError,
        "the CPUs of all workers must fit on a machine",
        got="9 on g6.2xlarge with 8",
        fix="Lower resources.cpus_per_worker",
    ):
        launch_file("aws", space=str(own), gpus=1)


@pytest.mark.parametrize("study", ["Big_Study.2", "x" * 80, "_a_"])
def test_names_of_clusters_are_allowed_by_kubernetes_and_clouds(study: str) -> None:
    options = {"space": SPACE, "gpus": 1, "study": study}
    job = yaml.safe_load(launch_file("kuberay", **options))
    names = [job["metadata"]["name"]]
    names += [
        yaml.safe_load(launch_file(name, **options))["cluster_name"] for name in ("aws", "gcp")
    ]
    for name in names:
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
        assert len(f"ray-{name}-worker-01234567-compute") <= 63


def test_every_file_runs_one_command_per_target() -> None:
    assert set(TARGETS) == set(EXAMPLES)
    for target in EXAMPLES:
        assert "resources.max_groups=" in shell_lines(target)
