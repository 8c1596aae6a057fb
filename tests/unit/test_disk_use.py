"""The disk that a study will need, against what it writes, and its refusal."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hms_ray.config.loading import validate_space
from hms_ray.config.space import Space
from hms_ray.config.values import replace_values
from hms_ray.dataset.packs import missing_pack_bytes
from hms_ray.dataset.prepare import prepare
from hms_ray.dataset.sources import pack_source, source_key, sources_for
from hms_ray.errors import ResourceError
from hms_ray.experiment import disk_use
from hms_ray.experiment.disk_use import estimate, require_disk_space
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.run import run_experiment
from tests.competition_folder import write_competition_folder
from tests.refused import refusal

MEL = {"kind": "mel", "centre_s": 10, "normalisation": "global", "downsample": [4, 4]}
STAGES = [
    {"name": "noisy", "rows": "below_threshold", "epochs": 1, "learning_rate": 0.01},
    {"name": "good", "rows": "at_least_threshold", "epochs": 1},
]


def space_of(**resources: Any) -> Space:
    return validate_space(
        {
            "experiment": {
                "data": {"n_folds": 2},
                "input": {
                    "views": ["kaggle panels", "eeg panels"],
                    "downsample": [10, 10],
                    "eeg": MEL,
                },
                "model": {"name": "test_efficientnet", "pretrained": False},
                "training": {"batch_size": 8, "stage_threshold": 8, "stages": STAGES},
            },
            "parameters": {"training.learning_rate": {"values": [0.01, 0.02]}},
            "resources": resources,
        },
        "test",
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_competition_folder(tmp_path_factory.mktemp("data") / "hms", 12)


def folder_bytes(folder: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in folder.rglob(pattern))


@pytest.mark.usefixtures("one_process")
def test_the_estimate_is_near_what_a_trial_writes(data: Path, tmp_path: Path) -> None:
    space, found = space_of(), []

    def check(rows: pd.DataFrame) -> None:
        found.append(estimate(space, rows, 1, data, tmp_path / "packed"))

    prepared = prepare(data, space.experiment, tmp_path, pack_dir=tmp_path / "packed", check=check)
    packed = folder_bytes(tmp_path / "packed", "*.npy")
    run_experiment(space.experiment, prepared, tmp_path, InProcessRunner(device="cpu"))
    weights = folder_bytes(tmp_path / ".store", "weights.pt")
    assert found[0].packs == pytest.approx(packed, rel=0.02)
    # Names and pickled headers of a very small model weigh more than those of a real one.
    assert 0.75 * weights < found[0].weights < weights
    later = estimate(space, prepared.rows(), 3, data, tmp_path / "packed")
    assert later.packs == 0
    assert later.weights == 3 * found[0].weights == 3 * later.fold_weights
    assert later.predictions == 3 * found[0].predictions


def rows_of(n: int) -> pd.DataFrame:
    return pd.DataFrame({"fold": [0, 1] * (n // 2), "eeg_id": 1, "eeg_start": range(n)})


def test_weights_depend_on_what_is_kept_and_on_the_searched_models(tmp_path: Path) -> None:
    rows = rows_of(10)
    one = estimate(space_of(), rows, 1, tmp_path, tmp_path).weights
    kept = space_of(keep_weights=5)
    assert estimate(kept, rows, 100, tmp_path, tmp_path).weights == 15 * one
    assert estimate(kept, rows, 7, tmp_path, tmp_path).weights == 7 * one
    alone = space_of(share_stages=False)
    assert estimate(alone, rows, 1, tmp_path, tmp_path).weights == one / 2
    double = alone.model_copy(
        update={"experiment": replace_values(alone.experiment, {"training.precision": "float64"})}
    )
    assert estimate(double, rows, 1, tmp_path, tmp_path).weights == one


@pytest.mark.parametrize(
    ("resources", "n_trials", "at_once"),
    [
        ({}, 100, 4),
        ({"cpus_per_worker": 2}, 100, 2),
        ({"workers": 3}, 100, 1),
        ({"max_groups": 3, "max_concurrent_trials": 1}, 100, 3),
        ({"max_groups": 50}, 4, 8),
        ({"workers": 9}, 1, 1),
    ],
)
def test_checkpoints_are_of_the_folds_that_are_trained_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    resources: dict[str, Any],
    n_trials: int,
    at_once: int,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    rows = rows_of(10)
    one = estimate(space_of(max_groups=1), rows, 1, tmp_path, tmp_path).checkpoints
    found = estimate(space_of(**resources), rows, n_trials, tmp_path, tmp_path).checkpoints
    assert found == one * at_once
    ema = replace_values(space_of().experiment, {"training.ema": 0.9})
    space = space_of(**resources).model_copy(update={"experiment": ema})
    found = estimate(space, rows, n_trials, tmp_path, tmp_path).checkpoints
    assert found == one * at_once * 5 / 4, "the average of the weights too"


Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Free bytes of every disk, in a list that a test may change."""
    found = [10**9]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, found[0]))
    return found


def test_a_study_that_cannot_fit_is_refused_with_numbers_and_remedy(
    tmp_path: Path, free: list[int]
) -> None:
    rows, results = rows_of(10), tmp_path / "new" / "results"
    use = estimate(space_of(), rows, 100, tmp_path, tmp_path)
    run = (rows, 100, tmp_path, results)
    free[0] = int(use.results * 3)
    assert require_disk_space(space_of(), *run) is None
    free[0] = int(use.results * 1.5)
    note = require_disk_space(space_of(), *run)
    assert note is not None
    assert f"weights {use.weights / 1e6:,.1f} MB" in note
    free[0] = int(use.results * 0.9)
    with refusal(
        ResourceError,
        "the disk of the results must have room for 100 trials",
        got=f"{free[0] / 1e6:,.1f} MB free",
        where=str(tmp_path),
        fix="--set resources.keep_weights=10",
    ):
        require_disk_space(space_of(), *run)
    assert require_disk_space(space_of(keep_weights=10), *run) is None
    free[0] = int(use.fold_weights * 8)
    with refusal(ResourceError, got="about", fix="--trials N"):
        require_disk_space(space_of(), *run)
    free[0] = 0
    with refusal(ResourceError, got="0.0 MB free", fix="--results DIR"):
        require_disk_space(space_of(), *run)
    assert require_disk_space(space_of(), rows, 0, tmp_path, results) is None, "all is trained"


def test_the_disk_of_the_packs_is_checked_too(
    data: Path, tmp_path: Path, free: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    space = space_of()
    forms = {source_key(*source): pack_source(*source) for source in sources_for(space)}
    rows = rows_of(10)
    packs = missing_pack_bytes(data, tmp_path, forms, rows, only_rows=False)
    assert packs > 1e6
    both = int(estimate(space, rows, 1, data, tmp_path).results + packs)
    free[0] = both - 1
    with refusal(ResourceError, "the disk of the results", got="packs"):
        require_disk_space(space, rows, 1, data, tmp_path, tmp_path)
    free[0] = both + 1
    assert require_disk_space(space, rows, 1, data, tmp_path, tmp_path)
    # On disks of their own.
    devices = iter([1, 2])
    monkeypatch.setattr(disk_use, "_device", lambda _: next(devices))
    sizes = {tmp_path: both, data: packs - 1}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, sizes[path]))
    with refusal(ResourceError, "the disk of the packs", fix="--pack-dir DIR"):
        require_disk_space(space, rows, 1, data, tmp_path, data)
