"""Cells to numbers: every kind of column that a table may come with."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.cells import numbers, texts, whole_numbers, written

NA = pd.NA


@pytest.mark.parametrize(
    ("column", "values", "broken"),
    [
        (pd.Series([3, -1]), [3, -1], [False, False]),
        (pd.Series([3, 2**62]), [3, 2**62], [False, False]),
        (pd.Series([3, 2**63], dtype="uint64"), [3, 0], [False, True]),
        (pd.Series([3, NA], dtype="Int64"), [3, 0], [False, True]),
        (pd.Series([3, 4], dtype="Int64"), [3, 4], [False, False]),
        (pd.Series([3.0, 2.5, np.nan, np.inf]), [3, 0, 0, 0], [False, True, True, True]),
        (pd.Series([2.0**53, 2.0**54]), [2**53, 0], [False, True]),
        (pd.Series(["3", "x", None, "4.0"]), [3, 0, 0, 4], [False, True, True, False]),
        (pd.Series(["3", 5, 1.5], dtype=object), [3, 5, 0], [False, False, True]),
        (pd.Series([True, False]), [0, 0], [True, True]),
        (pd.Series(pd.to_datetime(["2024-01-09"])), [0], [True]),
        (pd.Series([[1], [2, 3]]), [0, 0], [True, True]),
    ],
)
def test_whole_numbers(column: pd.Series, values: list[int], broken: list[bool]) -> None:
    found, bad = whole_numbers(column)
    assert found.dtype == np.int64
    assert found.tolist() == values
    assert bad.tolist() == broken


def test_numbers_tell_text_from_nothing() -> None:
    values, text = numbers(pd.Series(["1.5", "soon", None, "inf"]))
    np.testing.assert_array_equal(values, [1.5, np.nan, np.nan, np.inf])
    assert text.tolist() == [False, True, False, False]
    values, text = numbers(pd.Series([1.5, np.nan]))
    np.testing.assert_array_equal(values, [1.5, np.nan])
    assert not text.any()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "an empty value"),
        (float("nan"), "an empty value"),
        (NA, "an empty value"),
        (1000413488.5, "1000413488.5"),
        (np.int64(-3), "-3"),
        ("0.50", "0.5"),
        ("many", "'many'"),
        (True, "'True'"),
        (float("-inf"), "-inf"),
    ],
)
def test_written(value: object, text: str) -> None:
    assert written(value) == text


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Series(["LPD", None]), ["LPD", ""]),
        (pd.Series([np.nan, np.nan]), ["", ""]),
        (pd.Series([7, 8]), ["7", "8"]),
        (pd.Series(["LPD", np.nan], dtype=object), ["LPD", ""]),
    ],
)
def test_texts(column: pd.Series, expected: list[str]) -> None:
    assert texts(column).tolist() == expected
