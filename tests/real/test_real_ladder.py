"""A two-step ladder of public models: all rows, then tuned on rows of many votes.

Expected of the pair: on rows of >= 10 votes the tuned model gains more than 0.1 and on
all rows it loses more than 0.1. Most of both is class shares and confidence: recalibration
leaves less than 0.05 of the loss and less than half of the gain.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.schema import TARGET_COLUMNS, VOTE_COLUMNS
from hms_ray.display.ladder_report import LadderReport
from hms_ray.evaluate.step_scores import StepDifference
from hms_ray.ladder.report import make_report
from hms_ray.ladder.result import StepResult
from tests.ladder_data import ABOUT, step

pytestmark = pytest.mark.real

KEYS = ["eeg_id", "eeg_sub_id"]
ALL_ROWS = "spectrogram_50_10_second_2d_convnextbase_512x512_quality_012_pretraining"
TUNED = "spectrogram_50_10_second_2d_maxvittiny_512x512_quality_2"


@pytest.fixture(scope="module")
def report(real_data: Path) -> LadderReport:
    folder = real_data / "oof"
    files = [folder / f"{name}.parquet" for name in (ALL_ROWS, TUNED)]
    for file in files:
        if not file.is_file():
            pytest.skip(f"{file} is not there")
    table = pd.read_parquet(folder / "targets.parquet")
    rows = table[["eeg_id", "patient_id", "fold"]].astype(np.int64)
    rows.insert(0, "row_id", table["eeg_id"].astype(str) + "-" + table["eeg_sub_id"].astype(str))
    # Rows of unknown totals count as rows of few votes.
    rows["total_votes"] = table["total_votes"].fillna(1).astype(np.int64)
    shares = table[list(VOTE_COLUMNS)].to_numpy(np.float64)
    rows[list(TARGET_COLUMNS)] = shares / shares.sum(axis=1, keepdims=True)
    steps: list[StepResult] = []
    for file, name, before in zip(files, ("all", "tuned"), (None, "all"), strict=True):
        joined = table[KEYS].merge(pd.read_parquet(file), on=KEYS, how="left")
        values = joined.drop(columns=KEYS).to_numpy(np.float64)
        steps.append(step(name, rows, values / values.sum(axis=1, keepdims=True), before))
    return make_report(rows, steps, {**ABOUT, "simulated": False, "simulator": None})


def differences(report: LadderReport, group: str) -> tuple[StepDifference, StepDifference]:
    score = report.steps[1].scores[group]
    assert score.difference is not None
    assert score.recalibrated_difference is not None
    return score.difference, score.recalibrated_difference


def test_tuning_on_many_votes_helps_there_and_hurts_elsewhere(report: LadderReport) -> None:
    many, every = differences(report, "kl_10")[0], differences(report, "kl_all")[0]
    assert many.verdict == "better"
    assert many.mean < -0.1
    assert every.verdict == "worse"
    assert every.mean > 0.1


def test_most_of_the_gain_is_class_shares_and_confidence(report: LadderReport) -> None:
    every, corrected = differences(report, "kl_all")
    assert abs(corrected.mean) < 0.05 < every.mean
    many, corrected = differences(report, "kl_10")
    assert corrected.verdict == "better"
    assert many.mean < 2 * corrected.mean


def test_second_stage_has_the_expected_rows(report: LadderReport) -> None:
    assert report.n_rows("kl_all") == 21_490
    assert 7_000 < report.n_rows("kl_stage_2") < 9_000
