"""What models cost: minutes of training, or a file."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.blend.align import Member
from hms_ray.blend.subset_report import costs_of
from hms_ray.errors import PredictionError


def member(name: str, minutes: float | None = None) -> Member:
    return Member(name, pd.Index(["1"]), "eeg", np.eye(6)[:1], {}, "f", minutes=minutes)


MEMBERS = [member("0001", 2.5), member("0000", 4.0)]


@pytest.mark.parametrize("name", ["c.csv", "c.parquet"])
def test_names_of_models_stay_what_they_are(tmp_path: Path, name: str) -> None:
    """A trial is called 0001, which is no number."""
    table = pd.DataFrame({"model": ["0000", "0001", "7"], "cost": [3, 1.5, 2]})
    file = tmp_path / name
    table.to_csv(file, index=False) if file.suffix == ".csv" else table.to_parquet(file)
    assert costs_of(MEMBERS, str(file)).tolist() == [1.5, 3]
    assert costs_of(MEMBERS, "auto").tolist() == [2.5, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0000,3\n", r"^every model needs a cost, got none for 0001\. Add them to c\.csv\.$"),
        ("0000,3\n0001,\n", r"^every model needs a cost, got none for 0001\. Add"),
        (
            "0000,3\n0001,dear\n",
            r"^costs must be finite numbers above 0, got 'dear' for 0001, in .*c\.csv$",
        ),
        (
            "0000,0\n0001,1\n",
            r"^costs must be finite numbers above 0, got 0 for 0000, in .*csv$",
        ),
        ("0000,inf\n0001,1\n", r"^costs must be finite numbers above 0, got inf for 0000, in "),
        ("0000,1\n0000,2\n", r"^a model must have one cost, got several for 0000, in .*c\.csv$"),
    ],
)
def test_costs_that_are_none_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.csv").write_text(f"model,cost\n{text}")
    with pytest.raises(PredictionError, match=message):
        costs_of(MEMBERS, str(tmp_path / "c.csv"))


def test_costs_are_auto_or_a_file() -> None:
    message = r"^--cost must be auto or a file that ends in \.csv or \.parquet, got minutes$"
    with pytest.raises(PredictionError, match=message):
        costs_of(MEMBERS, "minutes")
