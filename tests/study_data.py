"""A study of two rows: its space, data and a trial's result."""

from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.competition.schema import PROBABILITY_COLUMNS, TARGET_COLUMNS
from hms_ray.config.loading import validate_space
from hms_ray.config.space import Space
from hms_ray.dataset.prepare import PackRef, Prepared
from hms_ray.experiment.run import ExperimentResult

RATE = "training.learning_rate"


def make_space(**others: object) -> Space:
    search = {RATE: {"min": 1e-4, "max": 1e-2, "log": True}}
    return validate_space({"parameters": search, **others}, "test")


def prepared_rows(folder: Path) -> Prepared:
    """Two rows of two patients in two folds; their pack does not exist."""
    rows = pd.DataFrame(
        {
            "row_id": ["1-0", "2-0"],
            "eeg_id": [1, 2],
            "patient_id": [10, 20],
            "total_votes": [3, 12],
            "fold": [0, 1],
        }
    )
    rows[list(TARGET_COLUMNS)] = np.eye(6)[:2]
    rows.to_parquet(folder / "rows.parquet")
    packs = {"kaggle": PackRef(folder / "pack", "p" * 64)}
    return Prepared(folder / "rows.parquet", packs, "r" * 64, "f" * 64, 2)


def make_result(kl_10: float, optimistic: bool = False) -> ExperimentResult:
    oof = pd.DataFrame(
        {"row_id": ["1-0", "2-0"], "eeg_id": [1, 2], "patient_id": [10, 20], "fold": [0, 1]}
    )
    oof[list(PROBABILITY_COLUMNS)] = np.full((2, 6), 1 / 6)
    return ExperimentResult(
        scores={"kl_all": kl_10 + 0.1, "kl_4": None, "kl_10": kl_10},
        oof=oof,
        keys={0: "a" * 64, 1: "b" * 64},
        reused=(1,),
        optimistic=optimistic,
        fold_minutes=1.5,
        saved_minutes=0.5,
    )
