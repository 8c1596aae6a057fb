"""A study whose rows have recordings, without any training: for the row browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.competition.read import read_labels
from hms_ray.competition.rows import make_rows
from hms_ray.dataset.hold_out import DATA_DIR
from hms_ray.study.folder import StudyFolder
from tests.blend_data import add_trials, make_study


def study_rows(data: Path) -> pd.DataFrame:
    """The rows of a competition folder in two folds by patient, with the folder's path."""
    rows = make_rows(read_labels(data))
    rows["fold"] = np.unique(rows["patient_id"], return_inverse=True)[1] % 2
    rows.attrs[DATA_DIR] = str(data)
    return rows


def make_row_study(
    place: Path, data: Path, n_trials: int = 3, rows: pd.DataFrame | None = None
) -> StudyFolder:
    """Study ``rows`` in ``place/results`` with finished trials."""
    place.mkdir(parents=True, exist_ok=True)
    study = make_study(place, "rows", study_rows(data) if rows is None else rows)
    add_trials(study, range(n_trials))
    return study
