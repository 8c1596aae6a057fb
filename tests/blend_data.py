"""Studies with finished trials, without any training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hms_ray.blend.align import Member
from hms_ray.competition.schema import PROBABILITY_COLUMNS, TARGET_COLUMNS, VOTE_COLUMNS
from hms_ray.config.loading import validate_space
from hms_ray.dataset.hold_out import HoldOut
from hms_ray.dataset.prepare import PackRef, Prepared
from hms_ray.evaluate.metric import kl_report
from hms_ray.evaluate.oof import make_oof, read_oof
from hms_ray.experiment.run import ExperimentResult
from hms_ray.study.folder import StudyFolder
from hms_ray.study.new import create_study

N_ROWS = 60


def targets(rows: pd.DataFrame) -> np.ndarray:
    return rows[list(TARGET_COLUMNS)].to_numpy()


def make_rows() -> pd.DataFrame:
    """60 rows of 12 patients in 3 folds."""
    generator = np.random.default_rng(0)
    number = np.arange(N_ROWS)
    rows = pd.DataFrame(
        {
            "row_id": [f"{n}-0" for n in number],
            "eeg_id": number,
            "patient_id": number // 5,
            "total_votes": generator.choice([2, 5, 12], size=N_ROWS),
            "fold": number // 5 % 3,
        }
    )
    rows[list(TARGET_COLUMNS)] = generator.dirichlet(np.ones(6), size=N_ROWS)
    return rows


def make_study(
    folder: Path,
    name: str,
    rows: pd.DataFrame | None = None,
    holdout: HoldOut | None = None,
) -> StudyFolder:
    """A study without trials in ``results``."""
    file = folder / f"{name}.parquet"
    (make_rows() if rows is None else rows).to_parquet(file)
    prepared = Prepared(
        file, {"kaggle": PackRef(folder / "pack", "p")}, "r", "f", 3, holdout=holdout
    )
    space = validate_space({"metric": "kl_4"}, "test")
    return create_study(folder / "results", name, space, prepared)


def add_trials(study: StudyFolder, numbers: Sequence[int], optimistic: Sequence[int] = ()) -> None:
    rows = study.rows()
    for number in numbers:
        generator = np.random.default_rng(number)
        mixed = 0.5 * targets(rows) + 0.5 * generator.dirichlet(np.ones(6), size=len(rows))
        result = ExperimentResult(
            scores=kl_report(targets(rows), mixed, rows["total_votes"]),
            oof=make_oof(rows, rows["fold"], mixed).sample(frac=1, random_state=number),
            keys={0: "a"},
            reused=(),
            optimistic=number in optimistic,
            fold_minutes=1.0,
        )
        study.write_trial(number, {}, study.space().experiment, result)


def written(path: Path, frame: pd.DataFrame) -> Path:
    """Writes a table as CSV or parquet, by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return path


def predictions(path: Path, rows: pd.DataFrame, seed: int = 0) -> Path:
    """Writes random predictions of rows under their row ids."""
    frame = rows[["row_id"]].copy()
    values = np.random.default_rng(seed).dirichlet(np.ones(6), size=len(rows))
    frame[list(VOTE_COLUMNS)] = values
    return written(path, frame)


def make_file(folder: Path) -> Path:
    """A file of predictions of the same rows from another source."""
    rows = make_rows()
    frame = rows[["row_id"]].copy()
    generator = np.random.default_rng(9)
    noise = generator.dirichlet(np.ones(6), size=len(rows))
    frame[list(VOTE_COLUMNS)] = 0.6 * targets(rows) + 0.4 * noise
    return written(folder / "mine.csv", frame)


def stored_blend(place: Path) -> dict[str, Any]:
    """The content of a blend.json."""
    content: dict[str, Any] = json.loads((place / "blend.json").read_text())
    return content


def stack(results: Path, place: Path) -> np.ndarray:
    """Predictions (M, n, 6) of the members named in a blend.json."""
    models = []
    for member in stored_blend(place)["members"]:
        if "file" in member:
            models.append(pd.read_csv(member["file"])[list(VOTE_COLUMNS)].to_numpy())
            continue
        path = results / member["study"] / "trials" / f"{member['trial']:04d}" / "oof.parquet"
        models.append(read_oof(path, make_rows())[list(PROBABILITY_COLUMNS)].to_numpy())
    return np.stack(models)


def member(name: str, minutes: float | None = None) -> Member:
    """A model of one row."""
    shares = np.full((1, 6), 1 / 6)
    return Member(name, pd.Index(["a"]), "row_id", shares, {}, "x", minutes=minutes)
