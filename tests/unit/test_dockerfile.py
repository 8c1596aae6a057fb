"""The Dockerfile, read stage by stage; it is never built here."""

from __future__ import annotations

import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from hms_ray import __version__
from hms_ray.distributed.launch.kubernetes import IMAGE, USER

ROOT = Path(__file__).parents[2]
FILE = ROOT / "cluster" / "Dockerfile"
Instruction = tuple[str, str]


def stages() -> list[list[Instruction]]:
    """Instructions with their arguments, by stage."""
    text = re.sub(r"^\s*#.*\n", "", FILE.read_text(encoding="utf-8"), flags=re.M)
    found: list[list[Instruction]] = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not line.strip():
            continue
        name, _, arguments = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append((name, arguments))
    return found


def arguments(stage: list[Instruction], name: str) -> list[str]:
    return [text for found, text in stage if found == name]


def test_every_stage_starts_from_one_pinned_slim_python() -> None:
    images = {arguments(stage, "FROM")[0].split(" AS ")[0] for stage in stages()}
    (image,) = images
    version = re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-[a-z]+", image)
    assert version is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lowest = project["requires-python"].removeprefix(">=")
    assert [int(part) for part in version[1].split(".")] >= [int(p) for p in lowest.split(".")]


def test_the_image_runs_as_the_user_of_the_launch_files() -> None:
    final = stages()[-1]
    assert arguments(final, "USER") == [f"{USER}:{USER}"]
    names = [name for name, _ in final]
    assert "RUN" not in names[names.index("USER") :]
    (run,) = arguments(final, "RUN")
    assert f"--uid {USER}" in run


def test_the_image_has_what_the_probes_of_kuberay_call() -> None:
    (run,) = arguments(stages()[-1], "RUN")
    installed = run.split("apt-get install")[1].split("&&")[0].split()
    assert {"bash", "wget", "grep"} <= set(installed)


def test_packages_are_pinned_and_have_the_dashboard() -> None:
    build = stages()[0]
    assert "PIP_CONSTRAINT=/src/constraints.txt" in arguments(build, "ENV")[0]
    (run,) = arguments(build, "RUN")
    assert "pip install '.[cluster]'" in run
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (ray,) = [name for name in project["dependencies"] if name.startswith("ray[")]
    wanted = ray.partition("]")[2]
    assert project["optional-dependencies"]["cluster"] == [f"ray[default]{wanted}"]


def copied() -> list[str]:
    """Files and folders that come from the repository."""
    found = []
    for stage in stages():
        for text in arguments(stage, "COPY"):
            if not text.startswith("--from="):
                *sources, _ = text.split()
                found += sources
    return found


@pytest.mark.parametrize("name", copied())
def test_copied_files_exist_and_are_not_ignored(name: str) -> None:
    assert (ROOT / name).exists()
    ignored = FILE.with_name("Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[1] == "*"
    assert f"!{name}" in ignored


def test_all_files_that_the_wheel_needs_are_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {
        "pyproject.toml",
        "constraints.txt",
        project["project"]["readme"],
        *project["project"]["license-files"],
        *project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"],
    }
    assert needed <= set(copied())


def test_no_secret_enters_the_image() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert not re.search(r"TOKEN=|PASSWORD|SECRET|_KEY=", text)
    assert not [name for name in copied() if fnmatch(name, "*data*") or name.startswith(".")]
    for stage in stages():
        assert not arguments(stage, "ADD")
        assert not arguments(stage, "ARG")
        assert all(text != "." for copy in arguments(stage, "COPY") for text in copy.split()[:-1])


def test_the_command_is_the_program() -> None:
    assert json.loads(arguments(stages()[-1], "CMD")[0]) == ["hms-ray", "--help"]
    assert IMAGE.endswith(f"/hms-ray:{__version__}")
    assert IMAGE in FILE.read_text(encoding="utf-8")
