"""A fold whose processes are killed again and again ends with the bits of an undisturbed one."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from hms_ray.dataset.prepare import Prepared, prepare
from hms_ray.storage.fold_store import FoldStore, StoredFold
from tests.competition_folder import write_competition_folder
from tests.killed_trainer import EXPERIMENT, MOMENTS
from tests.stage_sharing import assert_equal_folds


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("data")
    return prepare(write_competition_folder(folder / "hms", 9), EXPERIMENT, folder)


def stored(results: Path) -> StoredFold:
    store = FoldStore(results)
    (folder,) = store.folders()
    return store.read(folder.name)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_killed_folds_resume_bit_for_bit_and_train_no_half_epoch_twice(
    world_size: int, prepared: Prepared, tmp_path: Path
) -> None:
    (tmp_path / "prepared.pickle").write_bytes(pickle.dumps(prepared))
    command = [sys.executable, "-m", "tests.killed_trainer", str(tmp_path), str(world_size)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_equal_folds(stored(tmp_path / "killed"), stored(tmp_path / "undisturbed"))

    def reports(name: str) -> list[str]:
        file = tmp_path / name / "reports"
        return file.read_text().splitlines() if file.exists() else []

    undisturbed = reports("undisturbed-0")
    lives = [reports(f"killed-{number}") for number in range(len(MOMENTS) + 1)]
    evaluations = [line for life in lives for line in life if line.startswith("evaluation")]
    assert list(dict.fromkeys(evaluations)) == undisturbed
    # Trained again is only what came after a checkpoint: the half epoch whose checkpoint was
    # torn, and the last one, whose result was not stored.
    assert len(evaluations) == len(undisturbed) + 2, lives
    assert sum(life[0].startswith("fold_resumed") for life in lives if life) >= 4
