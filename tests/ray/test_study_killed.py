import signal
from pathlib import Path

import pytest
import yaml

from hms_ray.study.folder import StudyFolder
from tests.competition_folder import write_competition_folder
from tests.ray.sweep_process import FOLD_DONE, read_until, start_sweep, stored

pytestmark = pytest.mark.ray

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


@pytest.mark.timeout(600)
def test_killed_sweep_resumes_without_training_finished_folds_again(tmp_path: Path) -> None:
    write_competition_folder(tmp_path / "data", 12)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    killed = start_sweep(tmp_path, "killed")
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

    again = start_sweep(tmp_path, "killed")
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
