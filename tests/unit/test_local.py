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
        "search": {"input.eeg.kind": {"choices": ["mel", "mel_fixed"]}},
    },
    "test",
)


def test_an_experiment_of_two_sources_is_trained_and_then_taken_from_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    # Starting a process takes longer than these windows.
    monkeypatch.setattr("hms_ray.pack.build.default_workers", lambda: 1)
    simulate_folder(tmp_path / "data", n_patients=3, seed=3, processes=1)
    said = []
    for _ in range(2):
        assert train_locally(SPACE, tmp_path / "data", tmp_path / "results") == 0
        said.append(capsys.readouterr().out)
    assert "not searched here: input.eeg.kind" in said[0]
    assert "taken from the store" not in said[0]
    assert "taken from the store: fold 0, 1" in said[1]
    kl = [next(line for line in text.splitlines() if line.startswith("KL all")) for text in said]
    assert kl[0] == kl[1]
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


def test_the_summary_and_the_bar_say_which_stages_were_taken_from_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("hms_ray.pack.build.default_workers", lambda: 1)
    data = write_competition_folder(tmp_path / "data", 6)

    def train(last: dict[str, Any], share: bool = True) -> tuple[str, str]:
        experiment = staged(NOISY, last).model_dump(mode="json")
        resources = {"share_stages": share}
        space = validate_space({"experiment": experiment, "resources": resources}, "test")
        assert train_locally(space, data, tmp_path / "results", folds=[0, 2]) == 0
        return capsys.readouterr()

    assert "from the store" not in train(GOOD).out
    printed = train({**GOOD, "epochs": 1})
    (line,) = (text for text in printed.out.splitlines() if text.startswith("stage"))
    assert re.fullmatch(r"stage noisy taken from the store: fold 0, 2 \(\d s saved\)", line)
    shown = [text for text in printed.err.split("\r") if text.startswith("fold 0")]
    assert not shown[0].startswith("fold 0   0%")
    assert "from the store" not in train({**GOOD, "epochs": 3}, share=False).out
    assert "taken from the store: fold 0, 2" in train({**GOOD, "epochs": 1}).out
