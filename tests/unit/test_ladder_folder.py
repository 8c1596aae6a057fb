from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hms_ray.errors import PredictionError, StudyError
from hms_ray.evaluate.oof import write_oof
from hms_ray.ladder import folder as ladder_folder
from hms_ray.ladder.folder import find_ladder, read_ladder, write_ladder
from hms_ray.ladder.result import StepResult
from tests.ladder_data import ABOUT, ladder, probabilities


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    rows, results = ladder()
    write_ladder(tmp_path / "ladder", rows, results, ABOUT)
    return tmp_path / "ladder"


def test_written_ladder_is_read_unchanged(stored: Path) -> None:
    rows, results = ladder()
    found = read_ladder(stored)
    pd.testing.assert_frame_equal(found.rows, rows, check_dtype=False)
    assert found.about == ABOUT
    assert [result.name for result in found.results] == [result.name for result in results]
    for read, written in zip(found.results, results, strict=True):
        np.testing.assert_array_equal(probabilities(read), probabilities(written))
        assert replace(read, oof=written.oof) == replace(written, oof=written.oof)
    assert not list(stored.rglob(".draft-*"))


def test_ladder_without_the_newer_fields_is_read(stored: Path) -> None:
    file = stored / "steps.json"
    content = json.loads(file.read_text())
    for step in content["steps"]:
        del step["published_last"], step["checkpoint"]
    file.write_text(json.dumps(content))
    found = {result.name: result for result in read_ladder(stored).results}
    assert (found["sharp"].checkpoint, found["panels"].checkpoint) == ("best", "last")
    assert {result.published_last for result in found.values()} == {None}


def test_other_columns_of_the_rows_are_dropped(tmp_path: Path) -> None:
    rows, results = ladder()
    write_ladder(tmp_path, rows.assign(expert_consensus="Other"), results, ABOUT)
    assert list(read_ladder(tmp_path).rows) == list(rows)


def test_shorter_ladder_replaces_a_longer_one_entirely(stored: Path) -> None:
    rows, results = ladder()
    write_ladder(stored, rows, results[:2], ABOUT)
    assert [file.name for file in sorted((stored / "oof").iterdir())] == [
        "00.parquet",
        "01.parquet",
    ]
    assert len(read_ladder(stored).results) == 2


def test_interrupted_write_leaves_no_ladder(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, results = ladder()

    def stopped(path: Path, oof: pd.DataFrame) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ladder_folder, "write_oof", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_ladder(stored, rows, results, ABOUT)
    with pytest.raises(StudyError, match=r"must hold steps\.json, got none.*hms-ray ladder"):
        read_ladder(stored)


def test_predictions_of_another_run_are_refused(stored: Path) -> None:
    rows, results = ladder()
    write_oof(stored / "oof" / "01.parquet", results[2].oof)
    with pytest.raises(StudyError, match=r"01\.parquet must be the file .*other content.*again"):
        read_ladder(stored)
    rows.iloc[::-1].to_parquet(stored / "rows.parquet", index=False)
    with pytest.raises(StudyError, match=r"rows\.parquet must be the file"):
        read_ladder(stored)


def test_missing_and_damaged_files_are_named(stored: Path) -> None:
    (stored / "oof" / "02.parquet").unlink()
    with pytest.raises(PredictionError, match=r"must exist, in .*02\.parquet"):
        read_ladder(stored)
    (stored / "rows.parquet").write_bytes(b"no parquet")
    with pytest.raises(StudyError, match=r"rows\.parquet must be readable parquet.*in .*rows"):
        read_ladder(stored)


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["steps"][1].pop(name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content.update(format=9), r"format of steps\.json must be 1, got 9"),
        (lambda content: content.pop("rows"), r"must have rows"),
        (lambda content: content["about"].pop("machine"), r"got no machine"),
        (lambda content: content["about"].update(simulated="yes"), r"simulated true or false"),
        (without("weights"), r"step 1 must have weights, got none"),
        (without("oof"), r"step 1 must have oof"),
        (lambda content: content["steps"][1].update(before="none"), r"baseline must be another"),
        (lambda content: content["steps"].clear(), r"must have steps"),
    ],
)
def test_damaged_steps_file_is_refused(
    stored: Path, damage: Callable[[dict[str, Any]], Any], message: str
) -> None:
    file = stored / "steps.json"
    content = json.loads(file.read_text())
    damage(content)
    file.write_text(json.dumps(content))
    with pytest.raises(StudyError, match=message) as error:
        read_ladder(stored)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "panels"}, r"different names, got panels"),
        ({"before": "copy"}, r"another step of the ladder, got copy, in step copy"),
        ({"kind": "guess"}, r"one of experiment, fixed_blend, optimised_blend, got guess"),
        ({"kind": "fixed_blend"}, r"blend must have weights"),
        (
            {"weights": {"panels": 1.0}},
            r"must not, got \{'panels': 1\.0\}, in step copy",
        ),
        ({"fold_minutes": float("nan")}, r"fold_minutes must be at least 0, got nan"),
        ({"saved_minutes": -1.0}, r"saved_minutes must be at least 0"),
        ({"published_rows": "some"}, r"must be one of all, stage_2, got some, in step copy"),
        ({"checkpoint": "first"}, r"must be one of last, best, got first, in step copy"),
    ],
)
def test_invalid_results_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    rows, results = ladder()
    wrong = [results[0], replace(results[1], **changes)]
    with pytest.raises(StudyError, match=message):
        write_ladder(tmp_path, rows, wrong, ABOUT)
    assert not list(tmp_path.iterdir())


def test_predictions_must_be_of_the_rows_in_their_order(tmp_path: Path) -> None:
    rows, results = ladder()

    def written(oof: pd.DataFrame) -> list[StepResult]:
        return [replace(results[0], oof=oof)]

    oof = results[0].oof
    with pytest.raises(PredictionError, match=r"order of the ladder's rows.*step panels"):
        write_ladder(tmp_path, rows, written(oof.iloc[::-1]), ABOUT)
    with pytest.raises(PredictionError, match=r"every training row must be predicted"):
        write_ladder(tmp_path, rows, written(oof.iloc[1:]), ABOUT)
    with pytest.raises(PredictionError, match=r"got no total_votes"):
        write_ladder(tmp_path, rows.drop(columns="total_votes"), results, ABOUT)


def test_missing_facts_of_a_run_are_refused(tmp_path: Path) -> None:
    rows, results = ladder()
    about = {key: value for key, value in ABOUT.items() if key not in ("floors", "date")}
    with pytest.raises(StudyError, match=r"got no date, floors"):
        write_ladder(tmp_path, rows, results, about)


def test_ladder_is_found_by_name_or_path(stored: Path) -> None:
    assert find_ladder("ladder", stored.parent) == stored
    assert find_ladder(stored, Path("elsewhere")) == stored
    with pytest.raises(StudyError, match=r"steps\.json, got other \(known: ladder\)"):
        find_ladder("other", stored.parent)
