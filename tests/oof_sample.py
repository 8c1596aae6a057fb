"""Public models' out-of-fold predictions on real rows, as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from hms_ray.competition.schema import VOTE_COLUMNS

KEYS = ["eeg_id", "eeg_sub_id"]


class Sample(NamedTuple):
    targets: np.ndarray
    models: np.ndarray
    names: list[str]
    patients: np.ndarray
    votes: np.ndarray


def oof_sample(folder: Path) -> Sample:
    """Reads ``targets.parquet`` and the models in the same folder, by name."""
    table = pd.read_parquet(folder / "targets.parquet")
    files = sorted(path for path in folder.glob("*.parquet") if path.stem != "targets")
    models = []
    for file in files:
        joined = table[KEYS].merge(
            pd.read_parquet(file), on=KEYS, how="left", validate="one_to_one"
        )
        models.append(joined.drop(columns=KEYS).to_numpy(np.float32))
    return Sample(
        targets=table[list(VOTE_COLUMNS)].to_numpy(np.float64),
        models=np.stack(models),
        names=[file.stem for file in files],
        patients=table["patient_id"].to_numpy(np.int64),
        # Rows of unknown totals count as rows of few votes.
        votes=table["total_votes"].fillna(0).to_numpy(np.int64),
    )
