"""Numbers of files as distributions: what else they can be, and sums off by rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_ray.blend.external_files import read_external_predictions, read_targets
from hms_ray.competition.schema import PROBABILITY_COLUMNS, TARGET_COLUMNS
from hms_ray.errors import PredictionError
from hms_ray.evaluate.shares import ROUNDING_LIMIT, Renormalised, read_shares
from tests.blend_data import written
from tests.refused import refusal

IDS = [f"r{n}" for n in range(40)]
SHARES = np.random.default_rng(0).dirichlet(np.full(6, 0.3), size=40)
LOGITS = np.random.default_rng(1).normal(scale=3, size=(40, 6))
RULE = "predictions must be probabilities that sum to 1 in each row"


def predicted(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values, columns=list(PROBABILITY_COLUMNS)).assign(row_id=IDS)


@pytest.mark.parametrize(
    ("values", "got", "fix"),
    [
        (100 * SHARES, "percentages: rows sum to about 100", "Divide the six columns by 100"),
        (np.round(100 * SHARES), "percentages", "Divide the six columns by 100"),
        (LOGITS, f"looks like logits: values from {LOGITS.min():.3g} to ", "scipy.special.softmax"),
        (np.abs(LOGITS), "looks like logits: values from 0.", "scipy.special.softmax"),
        (np.log(SHARES), "logarithms of probabilities", "numpy.exp"),
        (np.round(7 * SHARES) + np.eye(6)[0], "votes: whole numbers", "Divide each row by its sum"),
    ],
)
@pytest.mark.parametrize("renormalise", [False, True])
def test_what_are_no_probabilities_is_named(
    tmp_path: Path, values: np.ndarray, got: str, fix: str, renormalise: bool
) -> None:
    file = written(tmp_path / "x.parquet", predicted(values))
    where = "x.parquet, 40 row(s): r0, r1, r2, r3, r4 and 35 more"
    with refusal(PredictionError, RULE, got=got, where=where, fix=fix):
        read_external_predictions(file, renormalise=renormalise)


def test_percentages_as_targets_are_named(tmp_path: Path) -> None:
    """As whole numbers they would pass for votes, 100 in each row."""
    halves = np.array([[50, 50, 0, 0, 0, 0], [20, 30, 50, 0, 0, 0]])
    for values, total in ((halves, 3), (halves * 1.001, 3)):
        frame = pd.DataFrame(values, columns=list(TARGET_COLUMNS))
        frame = frame.assign(row_id=IDS[:2], patient_id=1, total_votes=total)
        rule = "targets must be votes, or shares that sum to 1"
        with refusal(PredictionError, rule, got="percentages", where="x.csv, 2 row(s): r0, r1"):
            read_targets(written(tmp_path / "x.csv", frame))
    one = frame[:1].assign(**dict(zip(TARGET_COLUMNS, halves[0], strict=True)), total_votes=100)
    assert read_targets(written(tmp_path / "x.csv", one)).rows["total_votes"].tolist() == [100]


@pytest.mark.parametrize("decimals", [2, 3])
def test_rounded_shares_are_renormalised_on_request(tmp_path: Path, decimals: int) -> None:
    rounded = SHARES.round(decimals)
    file = written(tmp_path / "x.csv", predicted(rounded))
    with refusal(PredictionError, "must sum to 1", where="x.csv", fix="Add --renormalise"):
        read_external_predictions(file)
    found = read_external_predictions(file, renormalise=True)
    sums = rounded.sum(axis=1)
    np.testing.assert_array_equal(found.probabilities, rounded / sums[:, None])
    n_off = int((np.abs(sums - 1) > 1e-5).sum())
    assert 0 < n_off < 40
    assert found.renormalised == Renormalised(n_off, 40, sums.min(), sums.max())
    assert str(found.renormalised).startswith(f"renormalised {n_off} of 40 rows, whose sums were 0")
    exact = written(tmp_path / "y.csv", predicted(SHARES))
    untouched = read_external_predictions(exact, renormalise=True)
    assert untouched.renormalised is None
    np.testing.assert_array_equal(untouched.probabilities, SHARES)


def test_only_rounding_is_renormalised() -> None:
    values = SHARES.copy()
    values[3] *= 1 - 2 * ROUNDING_LIMIT
    rule, where = "sums must be within 0.03 of 1 to be renormalised", "1 row(s): r3"
    with refusal(PredictionError, rule, got="0.94", where=where, fix="mend"):
        read_shares(values, "predictions", IDS, renormalise=True, fix="mend")
    with refusal(PredictionError, "must sum to 1 within 1e-05", got="0.94", where=where):
        read_shares(values, "predictions", IDS)
    values[3] = [-1e-3, 1e-3, 1, 0, 0, 0]
    with refusal(PredictionError, "must not be negative", where=where, fix="mend"):
        read_shares(values, "predictions", IDS, renormalise=True, fix="mend")


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), decimals=st.integers(2, 5), scale=st.floats(0.05, 5))
def test_two_decimals_are_always_enough(seed: int, decimals: int, scale: float) -> None:
    shares = np.random.default_rng(seed).dirichlet(np.full(6, scale), size=40).round(decimals)
    found, _ = read_shares(shares, "predictions", IDS, renormalise=True)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
