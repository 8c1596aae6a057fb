"""The main job on three real EEGs: checked, packed, trained, scored."""

from pathlib import Path

import numpy as np
import pytest

from hms_ray.config.experiment import Experiment
from hms_ray.dataset.prepare import prepare
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.run import run_experiment

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("unit", "views", "label_rows"),
    [
        ("eeg_votes", ["panels", "statistics"], "own"),
        ("label", ["panels", "statistics"], "own"),
        ("eeg_votes", ["kaggle panels", "eeg panels", "eeg percentiles"], "own"),
        ("eeg_votes", ["raw signals"], "random_window"),
        ("eeg_votes", ["panels", "raw signals"], "random_row"),
    ],
)
def test_one_epoch_on_the_real_sample(
    real_data: Path, tmp_path: Path, unit: str, views: list[str], label_rows: str
) -> None:
    experiment = Experiment.model_validate(
        {
            "data": {"unit": unit, "n_folds": 2},
            "input": {"views": views, "normalisation": "global", "size": [128, 256]},
            "model": {"name": "test_efficientnet", "pretrained": False, "drop_path": 0.0},
            "training": {"batch_size": 4, "stages": [{"epochs": 1}], "label_rows": label_rows},
        }
    )
    prepared = prepare(
        real_data / "competition", experiment, tmp_path / "results", pack_dir=tmp_path / "packs"
    )
    result = run_experiment(
        experiment, prepared, tmp_path / "results", InProcessRunner(device="cpu")
    )
    assert len(result.oof) == len(prepared.rows())
    assert np.isfinite(probabilities_of(result.oof)).all()
    score = result.scores["kl_all"]
    assert score is not None
    assert 0 < score < 10
