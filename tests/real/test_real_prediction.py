"""The real test recording, predicted by models that real recordings were trained on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.blend.submit import submit
from hms_ray.competition.schema import PROBABILITY_COLUMNS
from hms_ray.predict.submission import check_submission
from hms_ray.predict.submit_trial import SubmitOptions
from tests.trained_study import train_study

pytestmark = pytest.mark.real


def test_predict_real_test_set_and_real_rows(real_data: Path, tmp_path: Path) -> None:
    data, packs = real_data / "competition", tmp_path / "packs"
    study = train_study(tmp_path, "joined", data, packs)
    options = SubmitOptions(
        data_dir=data,
        results=study.results,
        out=tmp_path / "submission.csv",
        pack_dir=packs,
        device="cpu",
    )
    text = submit(study.name, options)
    sample = pd.read_csv(data / "sample_submission.csv")
    table = pd.read_csv(tmp_path / "submission.csv")
    check_submission(table, sample["eeg_id"].tolist())
    assert list(table.columns) == list(sample.columns)
    assert text.splitlines()[0].endswith("1 row, mean of 2 folds of joined 0000")
    submit(f"{study.name}/0", replace(options, out=tmp_path / "rows.parquet", train_rows=True))
    rows, oof = pd.read_parquet(tmp_path / "rows.parquet"), study.result.oof
    assert rows["row_id"].tolist() == oof["row_id"].tolist()
    # Half of the mean of two folds is the prediction that was stored.
    values = rows[list(PROBABILITY_COLUMNS)].to_numpy()
    assert (values >= oof[list(PROBABILITY_COLUMNS)].to_numpy() / 2 - 1e-6).all()
    assert np.isfinite(values).all()
