import re
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import yaml

from hms_ray.config.experiment import Experiment
from hms_ray.dataset.prepare import prepare
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import collect, plan_folds
from hms_ray.storage.locks import running_since
from hms_ray.storage.resume_folder import RESUME, ResumeFolder
from hms_ray.study.folder import StudyFolder
from hms_ray.train.fold_state import FoldState, state_from
from tests.competition_folder import write_competition_folder
from tests.ray.sweep_process import FOLD_DONE, read_until, start_sweep, stored

pytestmark = pytest.mark.ray

EPOCHS = 30
SPACE: dict[str, Any] = {
    "experiment": {
        "data": {"n_folds": 2},
        "input": {"downsample": [10, 10]},
        "model": {"name": "test_efficientnet", "pretrained": False},
        # Long enough to be killed in the middle of a fold.
        "training": {"batch_size": 4, "stages": [{"rows": "all", "epochs": EPOCHS}]},
    },
    "parameters": {"training.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}},
    "budget": {"trials": 1},
    "resources": {"max_groups": 1, "checkpoint_every_s": 0, "health_check_interval_s": 0.2},
}
EVALUATION = re.compile(r"fold (\d) rank 0\] stage train epoch ([\d.]+): KL all")


def checkpoint(base: Path) -> FoldState | None:
    """The checkpoint of the fold in training, if there is one."""
    for folder in (base / "results" / ".store" / RESUME).glob("*"):
        with suppress(FileNotFoundError):
            content = ResumeFolder(base / "results", folder.name).read()
            if content is not None:
                return state_from(content)[0]
    return None


def wait_for_checkpoint(base: Path) -> None:
    end = time.monotonic() + 60
    while checkpoint(base) is None:
        assert time.monotonic() < end
        time.sleep(0.05)


def last_checkpoint(base: Path) -> float:
    """Epochs in the checkpoint that a killed run has left, once its workers have ended."""
    end = time.monotonic() + 60
    for folder in (base / "results" / ".store" / RESUME).glob("*"):
        while running_since(folder) is not None:
            assert time.monotonic() < end
            time.sleep(0.1)
    state = checkpoint(base)
    assert state is not None
    return state.epoch


def ray_processes(study: subprocess.Popen[str]) -> list[psutil.Process]:
    """All processes of Ray that a study has started."""
    children = psutil.Process(study.pid).children(recursive=True)
    names = set()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            names.add(child.name())
    assert {"gcs_server", "raylet"} <= names
    return children


def kill(processes: list[psutil.Process]) -> None:
    for child in processes:
        # The end of another one may have ended it already.
        with suppress(psutil.NoSuchProcess):
            child.kill()


def evaluations(base: Path) -> Counter[tuple[int, float]]:
    """How often each (fold, epoch) was trained, by the logs of all workers."""
    logs = (base / "results" / "killed" / "logs").iterdir()
    found = [match for log in logs for match in EVALUATION.findall(log.read_text())]
    return Counter((int(fold), float(epoch)) for fold, epoch in found)


def undisturbed(experiment: Experiment, base: Path) -> pd.DataFrame:
    results = base / "undisturbed"
    prepared = prepare(base / "data", experiment, results)
    tasks = plan_folds(experiment, prepared, results, Placement(world_size=1))
    InProcessRunner(device="cpu").run(tasks, lambda record: None)
    return collect(tasks, trained=[0, 1]).oof


@pytest.mark.timeout(600)
def test_a_killed_machine_or_head_costs_what_came_after_the_last_checkpoint(tmp_path: Path) -> None:
    write_competition_folder(tmp_path / "data", 12)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    runs = [start_sweep(tmp_path, "killed")]
    try:
        wait_for_checkpoint(tmp_path)
        processes = ray_processes(runs[0])
        runs[0].send_signal(signal.SIGKILL)
        # Ray takes seconds to end the workers, in which they would finish the fold.
        kill(processes)
        positions = [last_checkpoint(tmp_path)]
        folder = StudyFolder.open("killed", tmp_path / "results")
        assert (folder.trials(), stored(tmp_path)) == ([], {})

        runs.append(start_sweep(tmp_path, "killed"))
        printed = read_until(runs[1], FOLD_DONE)
        assert FOLD_DONE.search(printed), printed
        wait_for_checkpoint(tmp_path)
        kill(ray_processes(runs[1]))
        runs[1].communicate(timeout=120)
        assert runs[1].returncode not in (0, 130)
        positions.append(last_checkpoint(tmp_path))
        before = stored(tmp_path)
        assert (folder.trials(), len(before)) == ([], 1)

        runs.append(start_sweep(tmp_path, "killed"))
        printed = read_until(runs[2], None)
        assert runs[2].wait() == 0, printed
    finally:
        for run in runs:
            run.kill()
            run.communicate()
    (trial,) = folder.finished_trials()
    assert trial.number == 2, "the stopped trial is tried again under a number of its own"
    assert "interrupted trials, repeated first: 1" in printed
    assert [trial.keys[fold] for fold in trial.reused] == [path.name for path in before]
    assert f"reused from the fold store: fold {trial.reused[0]}" in printed
    assert len(FOLD_DONE.findall(printed)) == 1
    after = stored(tmp_path)
    assert len(after) == 2
    assert {path: after[path] for path in before} == before

    oof = trial.oof(folder.rows())
    expected = undisturbed(trial.experiment, tmp_path)
    pd.testing.assert_frame_equal(oof, expected[oof.columns], check_exact=True)
    trained = evaluations(tmp_path)
    folds = [*trial.reused, *({0, 1} - set(trial.reused))]
    for fold, position in zip(folds, positions, strict=True):
        assert 0 < position < EPOCHS
        counts = {epoch: n for (of, epoch), n in trained.items() if of == fold}
        assert len(counts) == 2 * EPOCHS
        assert {n for epoch, n in counts.items() if epoch <= position} == {1}
        assert max(counts.values()) <= 2
