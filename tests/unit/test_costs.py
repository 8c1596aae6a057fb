"""Costs of models: minutes of training, or a file."""

from pathlib import Path

import pandas as pd
import pytest

from hms_ray.blend.subset_report import costs_of
from hms_ray.errors import HmsRayError, PredictionError
from tests.blend_data import member, written
from tests.refused import refusal

MEMBERS = [member("0001", 2.5), member("0000", 4.0)]


@pytest.mark.parametrize("name", ["c.csv", "c.parquet"])
def test_names_of_models_stay_text(tmp_path: Path, name: str) -> None:
    """A trial is named 0001, which is not the number 1."""
    table = pd.DataFrame({"model": ["0000", "0001", "7"], "cost": [3, 1.5, 2]})
    file = written(tmp_path / name, table)
    assert costs_of(MEMBERS, str(file)).tolist() == [1.5, 3]
    assert costs_of(MEMBERS, "auto").tolist() == [2.5, 4]


@pytest.mark.parametrize(
    ("text", "rule", "got", "where", "fix"),
    [
        ("name,cost\na,1\n", "its 2 columns", "no model but name", "c.csv", "Rename the columns"),
        ("model,cost\n0000,3\n", "every model needs a cost", "none for 0001", "", "Add them"),
        ("model,cost\n0000,3\n0001,\n", "every model needs a cost", "none for 0001", "", "Add"),
        ("model,cost\n0000,3\n0001,dear\n", "numbers above 0", "'dear'", "c.csv, 1 row(s), c", ""),
        ("model,cost\n0000,0\n0001,1\n", "numbers above 0", "0", "counted from 1: 1", "Correct"),
        ("model,cost\n0000,inf\n0001,1\n", "numbers above 0", "inf", "from 1: 1", "Correct"),
        ("model,cost\n0000,1\n0000,2\n", "must have one cost", "for 0000", "c.csv", "Remove all"),
    ],
)
def test_invalid_costs_are_refused(
    tmp_path: Path, text: str, rule: str, got: str, where: str, fix: str
) -> None:
    (tmp_path / "c.csv").write_text(text)
    with refusal(HmsRayError, rule, got=got, where=where, fix=fix):
        costs_of(MEMBERS, str(tmp_path / "c.csv"))


def test_costs_are_auto_or_a_file() -> None:
    with refusal(PredictionError, "--cost must be auto or a .csv or .parquet file", got="minutes"):
        costs_of(MEMBERS, "minutes")
