"""The wheel, installed into an environment of its own, works from an empty folder."""

import ast
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterable
from email import message_from_string
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from hms_ray.blend.wheel import requirements, write_own_wheel
from tests.competition_folder import write_competition_folder

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs the installed program in an empty folder; libraries are this environment's."""
    place = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(place)]
    subprocess.run([*wheel, str(ROOT)], check=True)
    (file,) = place.glob("*.whl")
    venv.create(place / "venv", with_pip=False)
    python = place / "venv" / "bin" / "python"
    # --ignore-installed: this environment's editable install is not to be replaced.
    options = ["--no-deps", "--no-index", "--ignore-installed", str(file)]
    subprocess.run([*pip, "--python", str(python), "install", *options], check=True)
    (packages,) = (place / "venv" / "lib").glob("python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    (place / "empty").mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        program = place / "venv" / "bin" / words[0]
        return subprocess.run(
            [str(program), *words[1:]],
            cwd=place / "empty",
            env=clean,
            capture_output=True,
            text=True,
            check=False,
        )

    return call


def test_the_code_is_that_of_the_wheel(run: Run) -> None:
    done = run("python", "-c", "import hms_ray; print(hms_ray.__file__)")
    assert "/venv/lib/" in done.stdout, done.stderr
    assert run("hms-ray", "--version").stdout == run("python", "-m", "hms_ray", "--version").stdout
    assert "Usage: hms-ray" in run("hms-ray", "--help").stdout


def test_a_launch_file_is_printed(run: Run) -> None:
    done = run("hms-ray", "launch", "slurm", "--space", "loss_norm_threshold", "--gpus", "16")
    assert done.stdout.startswith("#!/usr/bin/env bash\n"), done.stderr
    assert "ray symmetric-run" in done.stdout


def test_a_folder_is_checked(run: Run, tmp_path: Path) -> None:
    folder = write_competition_folder(tmp_path / "data", n_patients=2, eegs_per_patient=1)
    done = run("hms-ray", "check", str(folder))
    assert done.returncode == 0, done.stderr
    assert str(folder) in done.stdout


def test_shipped_spaces_and_the_ladder_are_found(run: Run) -> None:
    program = """
from hms_ray.config.loading import load_space
from hms_ray.config.shipped import find_space
for name in ("demo", "ladder/9_panels_4", "ladder/09_panels_4"):
    load_space(find_space(name))
    print(find_space(name))
"""
    done = run("python", "-c", program)
    assert done.returncode == 0, done.stderr
    files = done.stdout.splitlines()
    assert len(files) == 3
    assert all("/venv/lib/" in file for file in files)
    done = run("hms-ray", "ladder", "--scale", "small", "--steps", "no_step")
    assert done.returncode == 2
    assert "no_step" in done.stderr
    assert "/venv/lib/" in done.stderr, "the manifest is the shipped one"


def test_a_checkout_and_an_installed_package_write_the_wheel_of_the_build_backend(
    run: Run, tmp_path: Path
) -> None:
    program = """
from pathlib import Path
from hms_ray.blend.wheel import requirements, write_own_wheel
print(write_own_wheel(Path(".")).resolve())
print(requirements())
"""
    done = run("python", "-c", program)
    assert done.returncode == 0, done.stderr
    path, installed = done.stdout.splitlines()
    (built,) = Path(path).parents[1].glob("*.whl")
    expected, written = contents(built), contents(Path(path))
    assert written == expected
    own = contents(write_own_wheel(tmp_path))
    (metadata,) = (name for name in own if name.endswith("METADATA"))
    # Without the extras and the page, which the wheel of a checkout leaves out.
    assert required(own.pop(metadata).decode()) == required(expected.pop(metadata).decode())
    assert own == expected
    assert as_set(requirements()) == as_set(ast.literal_eval(installed))


def required(metadata: str) -> tuple[str, set[Requirement]]:
    """The version of Python, and the requirements without extras."""
    about = message_from_string(metadata)
    lines = about.get_all("Requires-Dist", [])
    return about["Requires-Python"], as_set(line for line in lines if "extra ==" not in line)


def as_set(lines: Iterable[str]) -> set[Requirement]:
    return {Requirement(line) for line in lines}


def contents(wheel: Path) -> dict[str, bytes]:
    """Name -> content of the files that do not depend on the builder."""
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith(("RECORD", "/WHEEL"))]
        return {name: archive.read(name).rstrip() for name in names}
