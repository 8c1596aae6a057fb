"""Runs every part in a process of its own and prints one table; needs only Python to start.

See ``run.sh``. A part that fails or takes too long does not stop the others.
"""

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

ROW = "ROW "
"""Start of a line of output that is a row of the table, as JSON: case, images_per_s, note."""

LIMITS_S = {
    "tests": 120,
    "loop": 60,
    "compile_default": 120,
    "compile_reduce_overhead": 120,
    "folds_at_once": 90,
    "pack_upload": 45,
    "precision": 60,
    "deterministic": 60,
}
"""Part -> seconds after which it is ended; most take a fraction of that."""

MODULES = {
    "torch": "torch",
    "timm": "timm",
    "numpy": "numpy",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "safetensors": "safetensors",
    "pydantic": "pydantic",
    "yaml": "pyyaml",
    "filelock": "filelock",
}
"""Module -> package that every part needs."""
TEST_MODULES = {
    "pytest": "pytest",
    "pytest_timeout": "pytest-timeout",
    "hypothesis": "hypothesis",
    "typer": "typer",
    "rich": "rich",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "threadpoolctl": "threadpoolctl",
    "tensorboard": "tensorboard",
}
"""The same, for the part ``tests`` alone."""


@dataclass
class Outcome:
    """What a part printed, and how it ended."""

    part: str
    seconds: float
    fault: str | None
    rows: list[dict[str, object]] = field(default_factory=list)


def missing(modules: dict[str, str]) -> list[str]:
    """Packages whose module cannot be imported."""
    return [package for module, package in modules.items() if find_spec(module) is None]


def how_to_get(packages: Sequence[str]) -> str:
    """What to do about missing packages on a machine without a package index."""
    names = " ".join(packages)
    return (
        f"missing packages: {names}\n"
        "  with a package index: python3 -m pip install "
        f"{names}\n"
        "  without: on another machine with the same Python and platform\n"
        f"    python3 -m pip download --only-binary=:all: -d wheels {names}\n"
        "  copy the folder; pip stored what these packages need as well, so install it without\n"
        "  dependencies: torch then stays as it is\n"
        "    python3 -m pip install --no-index --no-deps wheels/*.whl\n"
        "  or, without writing to the Python of the machine,\n"
        "    python3 -m pip install --no-index --no-deps --target extra wheels/*.whl\n"
        "    PYTHONPATH=$PWD/extra bash tests/gpu/run.sh"
    )


def run_part(part: str, command: Sequence[str], limit_s: float) -> Outcome:
    """Runs a command, prints its output and collects its rows; ends it after the limit."""
    began = time.monotonic()
    # Its own session, so that the processes that it starts end with it.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, fault = process.communicate(timeout=limit_s)[0], None
        if process.returncode:
            fault = f"exit status {process.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, fault = process.communicate()[0], f"ended after {limit_s:g} s"
    lines = output.splitlines()
    rows = [json.loads(line.removeprefix(ROW)) for line in lines if line.startswith(ROW)]
    for line in lines:
        if not line.startswith(ROW):
            print(f"  {line}")
    return Outcome(part, time.monotonic() - began, fault, rows)


def table(outcomes: Iterable[Outcome]) -> list[str]:
    """The lines of a Markdown table."""
    lines = ["| part | case | images/s | note |", "|---|---|---:|---|"]
    for outcome in outcomes:
        for row in outcome.rows:
            rate = row.get("images_per_s")
            shown = f"{rate:,.0f}" if isinstance(rate, (int, float)) else ""
            lines.append(f"| {outcome.part} | {row['case']} | {shown} | {row.get('note', '')} |")
        end = "FAILED: " + outcome.fault if outcome.fault else "done"
        lines.append(f"| {outcome.part} | {end} | | {outcome.seconds:.0f} s in all |")
    return lines


def heading(machine: str) -> str:
    """Machine, versions and date, in one line."""
    known = []
    for package in ("torch", "timm", "numpy"):
        try:
            known.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            known.append(f"no {package}")
    python = ".".join(map(str, sys.version_info[:3]))
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return f"{machine}; {', '.join(known)}, Python {python}; {today.isoformat()}"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="Markdown file for the table")
    parser.add_argument("--part", action="append", choices=LIMITS_S, help="run only this part")
    parser.add_argument("--dry", action="store_true", help="tiny, on a CPU: tests the script")
    wanted = parser.parse_args(words)
    lacking = missing(MODULES)
    if lacking:
        print(how_to_get(lacking), file=sys.stderr)
        return 2
    parts = wanted.part or list(LIMITS_S)
    if "tests" in parts and (lacking := missing(TEST_MODULES)):
        print(f"the part tests cannot run; {how_to_get(lacking)}", file=sys.stderr)
    dry = ["--dry"] if wanted.dry else []
    command = [sys.executable, "-m", "tests.gpu.parts"]
    machine = subprocess.run(
        [*command, "machine", *dry], stdout=subprocess.PIPE, text=True, check=False
    )
    if machine.returncode:
        return 2
    lines = [heading(machine.stdout.strip())]
    print(lines[0], flush=True)

    def run(part: str) -> Outcome:
        print(f"{part} (at most {LIMITS_S[part]} s)", flush=True)
        return run_part(part, [*command, part, *dry], LIMITS_S[part])

    # Figures of a dry run mean nothing, so that its parts may disturb each other.
    with ThreadPoolExecutor(os.cpu_count() if wanted.dry else 1) as pool:
        outcomes = list(pool.map(run, parts))
    lines += ["", *table(outcomes)]
    print("\n" + "\n".join(lines[2:]))
    if wanted.file is not None:
        wanted.file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"\nwritten to {wanted.file}")
    return 1 if any(outcome.fault for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
