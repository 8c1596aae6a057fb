"""A study whose workers, controller, trials, node, own process and head are killed."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray


@pytest.mark.timeout(600)
def test_a_study_under_kills_ends_as_if_undisturbed_and_leaves_nothing() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.chaos", "--short"]
    run = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr[-5000:]
    assert "6 kills, 3 starts of the command" in run.stdout
    print(run.stdout)
