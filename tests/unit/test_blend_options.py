"""Options of ``hms-ray blend`` and ``hms-ray submit``: each is passed on, or refused."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hms_ray.blend.column_names import ColumnNames
from hms_ray.blend.settings import Settings
from hms_ray.cli.main import main
from hms_ray.predict.submit_trial import SubmitOptions

WORDS = """
--method auto --fit-on kl_4 --rows common --splits 7 --seed 1 --max-family-weight a=0.5
--fixed-weight b=0.5 --drop-identical --family a=* --published 31
--subsets --tolerance 0.01 --cost auto
--targets z.csv --columns row_id=a,lpd=b --columns x.csv:gpd=p2 --target-columns fold=c
--renormalise --row-unit eeg --out folder
"""
SETTINGS = Settings(
    method="auto",
    fit_on="kl_4",
    rows="common",
    n_splits=7,
    seed=1,
    max_family_weights=["a=0.5"],
    fixed_weights=["b=0.5"],
    families=["a=*"],
    drop_identical=True,
    published="31",
    subsets=True,
    tolerance=0.01,
    cost="auto",
    targets="z.csv",
    columns=ColumnNames({"row_id": "a", "lpd": "b"}, {"x.csv": {"gpd": "p2"}}),
    target_columns=ColumnNames({"fold": "c"}),
    renormalise=True,
    row_unit="eeg",
    out=Path("folder"),
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, where commands run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_option_of_blend_is_passed_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("hms_ray.blend.fit_command.blend", lambda *given: calls.append(given))
    stored = SimpleNamespace(without_models=list)
    monkeypatch.setattr("hms_ray.blend.stored.read_blend", lambda _: stored)
    assert main(["blend", "x.csv", "two", "--results", "r", *WORDS.split()]) == 0
    assert calls[0][:3] == (["x.csv", "two"], Path("r"), SETTINGS)
    changed = [
        field.name for field in fields(Settings) if field.default != vars(SETTINGS)[field.name]
    ]
    assert len(changed) == len(fields(Settings)), "no option has its default value"
    assert main(["blend", "one"]) == 0
    assert calls[1] == (["one"], Path("results"), Settings(), None)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["one", "--out", "there.csv"], ["--out must be a folder", "there.csv"]),
        (["one", "--tolerance", "0.001"], ["--tolerance needs --subsets"]),
        (["one", "--columns", "row_id=a", "--targets", "t.csv"], ["--columns needs an INPUT"]),
        (["x.csv", "--target-columns", "row_id=a", "--targets", "one"], ["needs --targets FILE"]),
        (["one", "--row-unit", "eeg"], ["--row-unit needs a .csv or .parquet file"]),
        (["one", "--renormalise"], ["--renormalise needs a .csv or .parquet file"]),
        (["one", "--rows", "kl_10"], ["--rows", "'kl_10'", "'same', 'common'"]),
        ([], ["INPUT"]),
        (["one", "--apply", "b.json"], ["--apply was renamed", "hms-ray submit"]),
        (["one", "--cap=a=1"], ["--cap was renamed", "--max-family-weight"]),
        (["one", "--fix", "a=1"], ["--fix was renamed", "--fixed-weight"]),
        (["one", "--recipe", "a"], ["--recipe was renamed", "--published"]),
        (["one", "--sets"], ["--sets was renamed", "--subsets"]),
    ],
)
def test_options_that_do_not_fit_are_refused(
    words: list[str], parts: list[str], place: Path, error_line: Callable[..., str]
) -> None:
    (place / "there.csv").touch()
    text = error_line("blend", *words)
    assert text.startswith("hms-ray blend: ")
    assert all(part in text for part in parts), text


def test_each_option_of_submit_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("hms_ray.blend.submit.submit", lambda *given: calls.append(given))
    words = ["submit", "one/3", "--data", "d", "--results", "r", "--out", "o.csv", "--train-rows"]
    words += ["--predictions", "a=b.csv", "--pack-dir", "p", "--device", "cpu", "--threads", "3"]
    words += ["--columns", "b.csv:lpd=p1", "--renormalise"]
    assert main(words) == 0
    target, options = calls[0]
    assert target == "one/3"
    assert options == SubmitOptions(
        data_dir=Path("d"),
        results=Path("r"),
        out=Path("o.csv"),
        train_rows=True,
        predictions=["a=b.csv"],
        columns=["b.csv:lpd=p1"],
        renormalise=True,
        pack_dir=Path("p"),
        device="cpu",
        threads=3,
    )
    assert main(["submit", "one", "--data", "d"]) == 0
    assert calls[1] == ("one", SubmitOptions(data_dir=Path("d")))
