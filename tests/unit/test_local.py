"""The whole way in one process: a folder, two sources, packs, a model, the store."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from hms_ray.config.loading import validate_space
from hms_ray.experiment.local_command import train_locally
from hms_ray.simulate.folder import simulate_folder
from hms_ray.storage.fold_store import FoldStore
from tests.competition_folder import write_competition_folder
from tests.stage_sharing import GOOD, NOISY, staged
from tests.tensorboard_reading import curve

SPACE = validate_space(
    {
        "experiment": {
            "name": "both",
            "data": {"n_folds": 2},
            "input": {
                "views": ["kaggle panels", "eeg panels", "eeg percentiles"],
                "downsample": [4, 4],
                "eeg": {"centre_s": 10, "normalisation": "global", "downsample": [4, 4]},
                "height": 64,
            },
            "model": {"name": "test_efficientnet", "pretrained": False, "drop_path": 0.0},
            "training": {"batch_size": 8, "augment": {"cutmix": {}}, "stages": [{"epochs": 1}]},
        },
        "parameters": {"input.eeg.kind": {"values": ["mel", "mel_fixed"]}},
    },
    "test",
)


def test_experiment_of_two_sources_is_trained_then_reused_from_the_fold_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    # Starting a process takes longer than these windows.
    monkeypatch.setattr("hms_ray.pack.build.default_workers", lambda: 1)
    simulate_folder(tmp_path / "data", n_patients=3, seed=3, processes=1)
    printed = []
    for _ in range(2):
        assert train_locally(SPACE, tmp_path / "data", tmp_path / "results") == 0
        printed.append(capsys.readouterr().out)
    assert "--local does not search" in printed[0]
    assert "reused from" not in printed[0]
    assert "reused from the fold store: fold 0, 1" in printed[1]
    scores = [re.findall(r"KL all .*out-of-fold rows", text) for text in printed]
    assert scores[0] == scores[1] != []
    log = (tmp_path / "results" / "local" / "both" / "log.txt").read_text()
    assert log.count("[fold 1 rank 0] stage train epoch") == 1
    assert "cache key of fold 0: " in log
    packs = sorted(
        path.parent.name.split("-")[0]
        for path in (tmp_path / "data" / "packed").glob("*/manifest.json")
    )
    assert packs == ["eeg", "kaggle"]  # the searched recipe is not made here
    store = FoldStore(tmp_path / "results")
    records = [store.record(path.parent.name) for path in store.root.glob("*/*/record.json")]
    assert len(records) == 2
    for record in records:
        assert set(record["made_from"]["sources"]) == {"kaggle", "eeg"}
        assert record["normalisation"]["kaggle"] == {"mode": "per_image"}
        assert set(record["normalisation"]["eeg"]) == {"mode", "mean", "std"}


def test_progress_names_the_reused_stages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("hms_ray.pack.build.default_workers", lambda: 1)
    data = write_competition_folder(tmp_path / "data", 6)

    def train(last: dict[str, Any], share: bool = True) -> str:
        experiment = staged(NOISY, last, checkpoint="best").model_dump(mode="json")
        resources = {"share_stages": share}
        space = validate_space({"experiment": experiment, "resources": resources}, "test")
        assert train_locally(space, data, tmp_path / "results", folds=[0, 2]) == 0
        return capsys.readouterr().out

    def steps(fold: int) -> list[int]:
        run = tmp_path / "results" / "local" / "experiment"
        return [step for step, _ in curve(run, f"folds/{fold}/KL all")]

    assert "from the fold store" not in train(GOOD)
    assert steps(0) == [500, 1000, 1500, 2000, 2500, 3000]
    assert steps(2) == [500, 1000, 2000, 3000], "a batch per epoch is evaluated once"
    printed = train({**GOOD, "epochs": 1})
    for fold in (0, 2):
        assert f"fold {fold}: stage noisy reused from the fold store" in printed
        assert steps(fold)[-1] == 2000, "those of this run alone"
    assert "from the fold store" not in train({**GOOD, "epochs": 3}, share=False)
    assert "reused from the fold store: fold 0, 2" in train({**GOOD, "epochs": 1})
