"""A study whose trial is trained in this process, and test sets to predict with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hms_ray.competition.schema import PROBABILITY_COLUMNS
from hms_ray.config.loading import validate_space
from hms_ray.config.values import replace_values
from hms_ray.dataset.prepare import Prepared, prepare
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.run import ExperimentResult, run_experiment
from hms_ray.study.folder import StudyFolder
from hms_ray.study.new import create_study
from tests.competition_folder import (
    eeg_values,
    spectrogram_values,
    write_competition_folder,
    write_eeg,
    write_spectrogram,
)

INPUTS: dict[str, dict[str, Any]] = {
    "kaggle": {"views": ["panels"], "downsample": [10, 10], "normalisation": "per_image"},
    "eeg": {
        "views": ["eeg panels"],
        "eeg": {"kind": "mel", "centre_s": 10, "normalisation": "global", "downsample": [4, 4]},
    },
    "joined": {
        "views": ["kaggle panels", "eeg panels", "raw signals"],
        "downsample": [4, 10],
        "normalisation": "per_frequency",
        "eeg": {
            "kind": "mel_fixed",
            "centre_s": 10,
            "normalisation": "robust",
            "downsample": [4, 4],
        },
        "raw": {"centre_s": 10, "normalisation": "global", "downsample": [1, 8]},
        "height": 64,
    },
}
"""Name -> input; every source, and normalisations with and without fitted constants."""

TEST_EEGS = (700_003, 700_001, 700_002)
"""In the order of ``test.csv``; the sample submission has them sorted."""


@dataclass(frozen=True)
class TrainedStudy:
    """A study of one trial, with its competition folder, prepared data and result."""

    name: str
    data: Path
    results: Path
    prepared: Prepared
    result: ExperimentResult

    @property
    def folder(self) -> StudyFolder:
        return StudyFolder.open(self.name, self.results)


def train_study(
    place: Path,
    inputs: str = "kaggle",
    data: Path | None = None,
    pack_dir: Path | None = None,
    values: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> TrainedStudy:
    """Trains one epoch over two folds and writes it as trial 0 of a study.

    The study has the name of its inputs if none is given. By default six patients are
    simulated. ``values`` of the experiment are set by dotted path.
    """
    if data is None:
        data = place / "data"
        if not data.exists():
            write_competition_folder(data, n_patients=6)
    space = validate_space(
        {
            "experiment": {
                "name": inputs,
                "data": {"n_folds": 2},
                "input": INPUTS[inputs],
                "model": {"name": "test_efficientnet", "pretrained": False},
                "training": {"batch_size": 8, "stages": [{"epochs": 1, "learning_rate": 0.01}]},
            }
        },
        "test",
    )
    space = space.model_copy(update={"experiment": replace_values(space.experiment, values or {})})
    prepared = prepare(data, space.experiment, place / "results", pack_dir=pack_dir)
    runner = InProcessRunner(device="cpu")
    result = run_experiment(space.experiment, prepared, place / "results", runner)
    name = name or inputs
    study = create_study(place / "results", name, space, prepared)
    study.write_trial(0, {}, space.experiment, result)
    return TrainedStudy(name, data, place / "results", prepared, result)


def write_test_set(
    folder: Path,
    *,
    n_samples: int = 10_000,
    n_rows: int = 300,
    silent: bool = False,
    eegs: bool = True,
) -> Path:
    """Writes a folder of three test recordings with gaps, and a sample submission.

    ``n_samples`` and ``n_rows`` are those of the second recording; with ``silent`` the last
    one is NaN throughout.
    """
    rng = np.random.default_rng(5)
    for name in ("test_eegs", "test_spectrograms"):
        (folder / name).mkdir(parents=True)
    numbers = [eeg_id + 100_000 for eeg_id in TEST_EEGS]
    table = {"spectrogram_id": numbers, "eeg_id": TEST_EEGS, "patient_id": [6, 6, 7]}
    pd.DataFrame(table).to_csv(folder / "test.csv", index=False)
    for place, (eeg_id, number) in enumerate(zip(TEST_EEGS, numbers, strict=True)):
        eeg = eeg_values(rng, n_samples if place == 1 else 10_000, gap=place == 0)
        power = spectrogram_values(rng, n_rows if place == 1 else 300, gap=place == 0)
        if silent and place == 2:
            eeg[:], power[:] = np.nan, np.nan
        if eegs:
            write_eeg(folder / "test_eegs" / f"{eeg_id}.parquet", eeg)
        file = folder / "test_spectrograms" / f"{number}.parquet"
        write_spectrogram(file, power, time_type="int16")
    write_sample(folder, sorted(TEST_EEGS))
    return folder


def write_sample(folder: Path, eeg_ids: list[int]) -> None:
    """Writes a sample submission."""
    sample = {"eeg_id": eeg_ids, **dict.fromkeys(PROBABILITY_COLUMNS, 1 / 6)}
    pd.DataFrame(sample).to_csv(folder / "sample_submission.csv", index=False)
