"""Tables in every form come in through one reader, whatever reads them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_ray.blend.external_files import (
    read_external_predictions,
    read_targets,
    read_test_predictions,
)
from hms_ray.blend.subset_report import costs_of
from hms_ray.competition.label_table import read_label_table
from hms_ray.competition.read import read_labels, read_test_table
from hms_ray.competition.schema import PROBABILITY_COLUMNS, TARGET_COLUMNS, VOTE_COLUMNS
from hms_ray.competition.tables import read_table
from hms_ray.dataset.folds import NOTES, fit_folds, read_folds
from hms_ray.errors import DataError
from hms_ray.predict.submission import submission_ids
from tests.blend_data import member
from tests.competition_folder import make_labels
from tests.refused import refusal
from tests.table_forms import FORMS, Form

IDS = ["700001-0", "700001-1", "700002-0", "700003-12"]
SHARES = np.random.default_rng(0).dirichlet(np.ones(6), size=4)
VOTES = np.arange(24).reshape(4, 6)


def with_classes(names: tuple[str, ...], values: np.ndarray, **others: Any) -> pd.DataFrame:
    return pd.DataFrame(others).join(pd.DataFrame(values, columns=list(names)))


def as_competition(file: Path, name: str) -> Path:
    """The folder of a file that must be named as in the competition."""
    return file.rename(file.with_name(name)).parent


PREDICTIONS = with_classes(PROBABILITY_COLUMNS, SHARES, row_id=IDS, fold=[0, 1, 2, 2])
TARGETS = with_classes(VOTE_COLUMNS, VOTES, row_id=IDS, patient_id=[1, 1, 2, 3], fold=[0, 0, 1, 2])
RATED = with_classes(
    TARGET_COLUMNS, SHARES, row_id=IDS, patient_id=[1, 1, 2, 3], total_votes=[3, 14, 2, 7]
)
BY_EEG = with_classes(PROBABILITY_COLUMNS, SHARES, eeg_id=[70, 50, 60, 2**40])
FOLDS = pd.DataFrame({"row_id": IDS, "patient_id": [1, 1, 2, 3], "fold": [0, 0, 1, 2]})
LABELS = make_labels(np.random.default_rng(0), n_patients=3).astype(
    {"eeg_label_offset_seconds": int, "spectrogram_label_offset_seconds": int}
)
TEST = pd.DataFrame({"spectrogram_id": [8, 9], "eeg_id": [6, 7], "patient_id": [1, 2]})
COSTS = pd.DataFrame({"model": ["0001", "0000"], "cost": [2, 3]})

KINDS: dict[str, tuple[pd.DataFrame, Callable[[Path], Any]]] = {
    "predictions": (PREDICTIONS, lambda file: vars_of(read_external_predictions(file))),
    "targets": (TARGETS, lambda file: read_targets(file).rows),
    "targets as shares": (RATED, lambda file: read_targets(file).rows),
    "test predictions": (BY_EEG, lambda file: read_test_predictions(file)[:2]),
    "predictions by EEG": (BY_EEG, lambda file: vars_of(read_external_predictions(file))),
    "folds": (FOLDS, read_folds),
    "folds by patient": (FOLDS[2:][["patient_id", "fold"]].assign(fold=[0, 1]), read_folds),
    "checked labels": (LABELS, lambda file: read_label_table(file).labels),
    "costs": (COSTS, lambda file: costs_of([member("0001"), member("0000")], str(file))),
}
IN_A_FOLDER: dict[str, tuple[pd.DataFrame, Callable[[Path], Any]]] = {
    "labels": (LABELS, lambda file: read_labels(as_competition(file, "train.csv"))),
    "test.csv": (TEST, lambda file: read_test_table(as_competition(file, "test.csv"))),
    "sample": (
        BY_EEG,
        lambda file: submission_ids(
            as_competition(file, "sample_submission.csv"), BY_EEG["eeg_id"].tolist()
        ),
    ),
}


def vars_of(found: Any) -> list[Any]:
    return [found.ids.tolist(), found.keys, found.probabilities]


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
    else:
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", [*KINDS, *IN_A_FOLDER])
def test_a_table_is_read_the_same_in_every_form(kind: str, tmp_path: Path) -> None:
    table, read = {**KINDS, **IN_A_FOLDER}[kind]
    expected = None
    for name, form in FORMS.items():
        if kind in IN_A_FOLDER and form.suffix != ".csv":
            continue
        (tmp_path / name).mkdir()
        found = read(form.write(tmp_path / name, table))
        expected = found if expected is None else expected
        assert_same(found, expected)


@settings(max_examples=40, deadline=None)
@given(
    form=st.builds(
        Form,
        suffix=st.sampled_from([".csv", ".parquet"]),
        bom=st.booleans(),
        line_end=st.sampled_from(["\n", "\r\n"]),
        names=st.sampled_from(["ours", "short", "title", "spaced"]),
        index=st.sampled_from(["none", "range", "key"]),
        floats=st.booleans(),
        shuffled=st.booleans(),
    ),
    ids=st.lists(
        st.integers(0, 2**53) | st.tuples(st.integers(0, 2**53), st.integers(0, 99)),
        min_size=1,
        max_size=6,
        unique=True,
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_written_in_any_form_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, form: Form, ids: list[Any], seed: int
) -> None:
    rows = ["-".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in ids]
    shares = np.random.default_rng(seed).dirichlet(np.ones(6), size=len(ids))
    table = with_classes(PROBABILITY_COLUMNS, shares, row_id=rows)
    found = read_external_predictions(form.write(tmp_path_factory.mktemp("form"), table))
    assert found.ids.tolist() == rows
    np.testing.assert_array_equal(found.probabilities, shares)


@pytest.mark.parametrize(
    ("name", "content", "rule", "got", "fix"),
    [
        ("x.csv", None, "x.csv must exist", "", "Check the path"),
        ("x.csv", "folder", "x.csv must exist", "a folder", "Check the path"),
        ("x.txt", b"a,b\n1,2\n", "must be a .csv or .parquet file", "x.txt", "Write the table as"),
        ("x.npy", b"\x93NUMPY", "must be a .csv or .parquet file", "x.npy", "pandas.DataFrame(arr"),
        ("x.npz", None, "must be a .csv or .parquet file", "x.npz", "pandas.DataFrame(array"),
        ("x.csv", b"", "must have rows and columns", "none", "Write the file again"),
        ("x.csv", b"\n \n", "must have rows and columns", "none", "Write the file again"),
        ("x.csv", b"a,b\n", "must have rows and columns", "none", "Write the file again"),
        ("x.csv", b"a;b\n1;2\n", "comma-separated", "separated by semicolons", "as a .csv file"),
        ("x.csv", b"a\tb\n1\t2\n", "comma-separated", "semicolons or tabs", "as a .csv file"),
        ("x.csv", b"a,b\n1,2,3\n4,5,6\n", "comma-separated", "more cells than", "as a .csv file"),
        ("x.csv", b"a,b\n1,2\n1,2,3,4\n", "comma-separated", "line 3", "as a .csv file"),
        ("x.csv", b"caf\xe9,b\n1,2\n", "in UTF-8", "codec can't decode", "as a .csv file"),
        ("x.csv", "a,b\n1,2\n".encode("utf-16"), "in UTF-8", "text in UTF-16", "in UTF-8"),
        ("x.csv", gzip.compress(b"a,b\n", mtime=0), "comma-separated", "a gzip archive", "Unpack"),
        ("x.csv", b"PAR1" + bytes(99), "comma-separated", "a parquet file", "as a .csv file"),
        ("x.csv", b"<!DOCTYPE html>\n<p>", "comma-separated", "an HTML page", "Download"),
        ("x.parquet", b"a,b\n1,2\n", "complete parquet file", "CSV text", "as a .parquet file"),
        ("x.parquet", b"PAR1" + bytes(99), "complete parquet file", "", "as a .parquet file"),
        ("x.parquet", b"", "complete parquet file", "an empty file", "as a .parquet file"),
    ],
)
def test_what_is_no_table_is_named(
    tmp_path: Path, name: str, content: bytes | str | None, rule: str, got: str, fix: str
) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content:
        (tmp_path / name).mkdir()
    with refusal(DataError, rule, got=got, where=name, fix=fix):
        read_table(tmp_path / name)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_that_is_there_twice_is_named(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"x{suffix}"
    Form(suffix=suffix).write(tmp_path, PREDICTIONS.assign(LPD_vote=0.5)).rename(file)
    assert read_table(file).column("lpd_vote") is not None, "the exact name comes first"
    renamed = PREDICTIONS.rename(columns={"lpd_vote": "LPD_Vote"}).assign(LPD_vote=0.5)
    Form(suffix=suffix).write(tmp_path, renamed).rename(file)
    rule, got = "a table must have each column once", "LPD_Vote, LPD_vote"
    with refusal(DataError, rule, got=got, where="x", fix="Remove or rename"):
        read_external_predictions(file)


def test_equal_names_in_a_header_are_seen(tmp_path: Path) -> None:
    """pandas would rename the second one to ``fold.1``."""
    (tmp_path / "x.csv").write_text("row_id,fold,fold\na,0,1\nb,1,0\n")
    with refusal(DataError, "each column once", got="fold, fold", where="x.csv", fix="Remove"):
        read_folds(tmp_path / "x.csv")


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_folds_that_count_from_1_are_folds_from_0(tmp_path: Path, form: Form) -> None:
    given = read_folds(form.write(tmp_path, FOLDS.assign(fold=FOLDS["fold"] + 1)))
    (note,) = given.attrs[NOTES]
    assert note == f"table{form.suffix} counts folds from 1: its fold 1 is fold 0 here"
    assert fit_folds(given, FOLDS)["fold"].tolist() == [0, 0, 1, 2]
    from_0 = read_folds(form.write(tmp_path, FOLDS))
    assert (from_0.attrs[NOTES], from_0["fold"].tolist()) == ((), [0, 0, 1, 2])
