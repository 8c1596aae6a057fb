"""A sweep as a process of its own, and what it has stored."""

import os
import re
import subprocess
import sys
from pathlib import Path

from hms_ray.storage.fold_store import RECORD_FILE

ROOT = Path(__file__).parents[2]
FOLD_DONE = re.compile(r"trial \d+ fold \d done")


def start_sweep(base: Path, study: str, *options: str) -> subprocess.Popen[str]:
    """Starts the sweep of ``space.yaml`` on ``data``, both below ``base``."""
    words = ["sweep", str(base / "space.yaml"), "--data", str(base / "data")]
    words += ["--results", str(base / "results"), "--study", study, *options]
    return subprocess.Popen(
        [sys.executable, "-m", "hms_ray", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(process: subprocess.Popen[str], pattern: re.Pattern[str] | None) -> str:
    """What a process prints up to a line that matches, or to its end."""
    assert process.stdout is not None
    read = []
    for line in process.stdout:
        read.append(line)
        if pattern is not None and pattern.search(line):
            break
    return "".join(read)


def stored(base: Path) -> dict[Path, int]:
    """Every stored fold and when it was written, to the nanosecond."""
    files = (base / "results" / ".store").glob(f"??/*/{RECORD_FILE}")
    return {file.parent: file.stat().st_mtime_ns for file in files}
