"""A sweep that is stopped: a second process, SIGTERM once and twice, and ``hms-ray stop``."""

import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml

from hms_ray.cli.main import main
from hms_ray.storage.locks import running_since
from hms_ray.study.folder import StudyFolder
from hms_ray.study.run_outcome import EXIT_ZERO, read_outcome
from tests.competition_folder import write_competition_folder
from tests.ray.sweep_process import FOLD_DONE, read_until, start_sweep, stored

pytestmark = pytest.mark.ray

SPACE = {
    "experiment": {
        "data": {"n_folds": 3},
        "input": {"downsample": [10, 10]},
        "model": {"name": "test_efficientnet", "pretrained": False},
        # Long enough for a person to stop the trial while it runs.
        "training": {"batch_size": 4, "stages": [{"rows": "all", "epochs": 20}]},
    },
    "parameters": {"training.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}},
    "budget": {"trials": 1},
    "resources": {"max_groups": 1, "health_check_interval_s": 0.2},
}
WORK = re.compile("1 trial x 3 folds")
STARTED = re.compile(r"trial \d+ \(")


def wait_until_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert alive == []


@pytest.mark.timeout(600)
def test_a_stopped_sweep_is_ready_to_resume(tmp_path: Path) -> None:
    write_competition_folder(tmp_path / "data", 12)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    results = tmp_path / "results"
    runs: list[subprocess.Popen[str]] = []

    def started(*options: str) -> tuple[subprocess.Popen[str], str]:
        runs.append(start_sweep(tmp_path, "stopped", *options))
        printed = read_until(runs[-1], STARTED)
        assert STARTED.search(printed), printed
        return runs[-1], printed

    try:
        first = start_sweep(tmp_path, "stopped")
        runs.append(first)
        # It has the lock; the second one starts while Ray does.
        printed = read_until(first, WORK)
        assert WORK.search(printed), printed
        second = start_sweep(tmp_path, "stopped")
        refused, _ = second.communicate(timeout=120)
        assert second.returncode == 2
        owner = f"locked by another process (host {socket.gethostname()}, pid {first.pid}, since"
        assert owner in refused

        printed = read_until(first, FOLD_DONE)
        assert FOLD_DONE.search(printed), printed
        signalled = time.monotonic()
        first.send_signal(signal.SIGTERM)
        printed, _ = first.communicate(timeout=60)
        assert first.returncode == 143, printed
        seconds = time.monotonic() - signalled
        print(f"SIGTERM: exit status 143 after {seconds:.1f} s")
        assert seconds < 20
        assert "stopping after SIGTERM; another one ends at once" in printed
        assert "hms-ray sweep: stopped; the same command resumes" in printed
        assert "Traceback" not in printed
        folder = StudyFolder.open("stopped", results)
        assert running_since(folder.path) is None
        assert folder.trials() == [], "a stopped trial has not failed"
        folds = stored(tmp_path)
        assert 1 <= len(folds) < 3

        again, printed = started(EXIT_ZERO)
        assert "interrupted trials, repeated first: 1" in printed
        assert main(["stop", "stopped", "1", "--results", str(results)]) == 0
        (trial,) = folder.trials()
        assert (trial.number, trial.reason) == (1, "stopped by hms-ray stop")
        printed = read_until(again, re.compile(r"trial 0002 \("))
        assert "trial 0002 (" in printed, "the study continues with another trial"
        assert main(["stop", "stopped", "--results", str(results)]) == 0
        printed, _ = again.communicate(timeout=60)
        assert again.returncode == 0, "no scheduler starts it again"
        assert "stopped; the same command resumes" in printed
        outcome = read_outcome(folder.path)
        assert outcome is not None
        assert outcome.text == "stopped by hms-ray stop"
        assert running_since(folder.path) is None

        last, _ = started()
        # Ray's agents look for their parent now and then, and end later.
        children = psutil.Process(last.pid).children(recursive=True)
        children = [child for child in children if not child.name().endswith("Agent")]
        last.send_signal(signal.SIGTERM)
        read_until(last, re.compile("stopping"))
        signalled = time.monotonic()
        last.send_signal(signal.SIGINT)
        printed, _ = last.communicate(timeout=60)
        assert last.returncode == 143, printed
        assert time.monotonic() - signalled < 3
        assert "ended at once" in printed
        wait_until_gone(children)
        assert folder.trials() == [trial]
        assert {path: stored(tmp_path)[path] for path in folds} == folds
    finally:
        for run in runs:
            run.kill()
            run.communicate()
