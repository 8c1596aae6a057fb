import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hms_ray.storage.fold_store import RECORD_FILE
from hms_ray.study.folder import StudyFolder
from tests.competition_folder import write_competition_folder

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
SPACE = {
    "experiment": {
        "data": {"n_folds": 3},
        "input": {"downsample": [10, 10]},
        "model": {"name": "test_efficientnet", "pretrained": False},
        # Long enough to be killed in the middle of a trial.
        "training": {"batch_size": 4, "stages": [{"rows": "all", "epochs": 20}]},
    },
    "parameters": {"training.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}},
    "budget": {"trials": 1},
    "resources": {"workers": 2, "group": "study", "health_check_interval_s": 0.2},
}
FOLD_DONE = re.compile(r"trial \d+ fold \d done")


def start_sweep(base: Path) -> subprocess.Popen[str]:
    words = ["sweep", str(base / "space.yaml"), "--data", str(base / "data")]
    words += ["--results", str(base / "results"), "--study", "killed"]
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


@pytest.mark.timeout(600)
def test_killed_sweep_resumes_without_training_finished_folds_again(tmp_path: Path) -> None:
    write_competition_folder(tmp_path / "data", 12)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    killed = start_sweep(tmp_path)
    try:
        printed = read_until(killed, FOLD_DONE)
        assert FOLD_DONE.search(printed), printed
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    folder = StudyFolder.open("killed", tmp_path / "results")
    assert folder.trials() == []
    before = stored(tmp_path)
    assert 1 <= len(before) < 3

    again = start_sweep(tmp_path)
    try:
        printed = read_until(again, None)
        assert again.wait() == 0, printed
    finally:
        again.kill()
        again.communicate()
    (trial,) = folder.finished_trials()
    assert trial.number == 1, "the stopped trial is tried again under a number of its own"
    assert {trial.keys[fold] for fold in trial.reused} == {path.name for path in before}
    assert "interrupted trials, repeated first: 1" in printed
    assert f"reused from the fold store: fold {', '.join(map(str, trial.reused))}" in printed
    assert len(FOLD_DONE.findall(printed)) == 3 - len(before)
    after = stored(tmp_path)
    assert len(after) == 3
    assert {path: after[path] for path in before} == before
