"""Costs of models: minutes of training, or a file."""

from pathlib import Path

import pandas as pd
import pytest

from hms_ray.blend.subset_report import costs_of
from hms_ray.errors import PredictionError
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
    ("text", "rule", "got"),
    [
        ("name,cost\na,1\n", "columns model and cost", "name, cost"),
        ("model,cost\n0000,3\n", "every model needs a cost", "none for 0001"),
        ("model,cost\n0000,3\n0001,\n", "every model needs a cost", "none for 0001"),
        ("model,cost\n0000,3\n0001,dear\n", "finite numbers above 0", "'dear' for 0001"),
        ("model,cost\n0000,0\n0001,1\n", "finite numbers above 0", "0 for 0000"),
        ("model,cost\n0000,inf\n0001,1\n", "finite numbers above 0", "inf for 0000"),
        ("model,cost\n0000,1\n0000,2\n", "a model must have one cost", "several for 0000"),
    ],
)
def test_invalid_costs_are_refused(tmp_path: Path, text: str, rule: str, got: str) -> None:
    (tmp_path / "c.csv").write_text(text)
    with refusal(PredictionError, rule, got=got):
        costs_of(MEMBERS, str(tmp_path / "c.csv"))


def test_costs_are_auto_or_a_file() -> None:
    with refusal(PredictionError, "--cost must be auto or a .csv or .parquet file", got="minutes"):
        costs_of(MEMBERS, "minutes")
