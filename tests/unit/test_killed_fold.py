"""A fold whose processes are killed again and again ends with the bits of an undisturbed one."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from hms_ray.dataset.prepare import prepare
from hms_ray.storage.fold_store import FoldStore, StoredFold
from tests.competition_folder import write_competition_folder
from tests.killed_trainer import EXPERIMENT, MOMENTS
from tests.stage_sharing import assert_equal_folds

WORLD_SIZES = (1, 2, 3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each world size a folder with killed and undisturbed runs."""
    folder = tmp_path_factory.mktemp("killed")
    prepared = prepare(write_competition_folder(folder / "hms", 9), EXPERIMENT, folder)
    (folder / "prepared.pickle").write_bytes(pickle.dumps(prepared))
    command = [sys.executable, "-m", "tests.killed_trainer", str(folder), *map(str, WORLD_SIZES)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def stored(results: Path) -> StoredFold:
    store = FoldStore(results)
    (folder,) = store.folders()
    return store.read(folder.name)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_killed_folds_resume_bit_for_bit_and_train_no_half_epoch_twice(
    world_size: int, trained: Path
) -> None:
    folder = trained / str(world_size)
    assert_equal_folds(stored(folder / "killed"), stored(folder / "undisturbed"))

    def reports(name: str) -> list[str]:
        file = folder / name / "reports"
        return file.read_text().splitlines() if file.exists() else []

    undisturbed = reports("undisturbed-0")
    lives = [reports(f"killed-{number}") for number in range(len(MOMENTS) + 1)]
    evaluations = [line for life in lives for line in life if line.startswith("evaluation")]
    assert list(dict.fromkeys(evaluations)) == undisturbed
    # Trained again is only what came after a checkpoint: the half epoch whose checkpoint was
    # torn, and the last one, whose result was not stored.
    assert len(evaluations) == len(undisturbed) + 2, lives
    assert sum(life[0].startswith("fold_resumed") for life in lives if life) >= 4
