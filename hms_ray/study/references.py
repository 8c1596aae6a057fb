"""Reference blends of a study by ``metric: blend_gain``, as stored in its folder.

``references/0003/`` has ``reference.json`` (method, members, weights of every fold, the trials
that were finished) and ``oof.parquet`` (the frozen out-of-sample predictions of every row). A
reference is written whole and never changes, so that a study resumes with the same values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from hms_ray.competition.rows import ROW_UNIT
from hms_ray.competition.schema import PROBABILITY_COLUMNS, TARGET_COLUMNS
from hms_ray.errors import PredictionError, StudyError
from hms_ray.evaluate.metric import Array, kl_report
from hms_ray.evaluate.oof import KEY_COLUMNS, OPTIMISTIC, probabilities_of, read_oof, write_oof
from hms_ray.storage.atomic import whole_folder
from hms_ray.storage.folder_names import REFERENCE_FILE, REFERENCES
from hms_ray.storage.structured_files import json_text, read_json, unreadable_file
from hms_ray.study.folder import StudyFolder

_OOF_FILE: Final = "oof.parquet"
_FIX: Final = "Restore it from a backup, or run the study under another name."


@dataclass(frozen=True)
class Reference:
    """A frozen reference blend.

    Attributes:
        number: from 0, in the order of the study.
        method: of the blend, such as ``simplex``.
        members: as plain data: ``name``; ``trial`` and ``keys`` of a trial of the study, or
            what locates another model; ``weight``, and ``weights_by_fold`` (fold -> weight) if
            the study fitted the blend.
        finished: trials that were finished when it was fitted.
        probabilities: (n, 6) out-of-sample predictions, in the order of the study's rows.
        optimistic: whether a member's checkpoints were chosen on the scored rows.
        source: where it comes from, if the study did not fit it.
        scores: its three KLs.
    """

    number: int
    method: str
    members: Sequence[Mapping[str, Any]]
    finished: Sequence[int]
    probabilities: Array
    optimistic: bool = False
    source: str | None = None
    scores: Mapping[str, float | None] | None = None

    def weights_of(self, trial: int, folds: Sequence[int]) -> Array | None:
        """(K,) weight of a trial in the blend of each of these folds; None if not a member."""
        for member in self.members:
            if member.get("trial") == trial and "weights_by_fold" in member:
                weights = member["weights_by_fold"]
                return np.array([weights[str(fold)] for fold in folds], np.float64)
        return None

    @property
    def title(self) -> str:
        """Such as ``reference 0002 (simplex of 5 members)``."""
        n = len(self.members)
        return f"reference {self.number:04d} ({self.method} of {n} member{'s' * (n != 1)})"


def write_reference(folder: StudyFolder, rows: pd.DataFrame, reference: Reference) -> None:
    """Writes a reference, whole or not at all; the caller holds the study's lock."""
    path = _path(folder, reference.number)
    oof = rows[list(KEY_COLUMNS)].copy()
    oof["row_id"] = oof["row_id"].astype(str)
    oof[list(PROBABILITY_COLUMNS)] = reference.probabilities
    oof.attrs = {ROW_UNIT: folder.row_unit, **({OPTIMISTIC: True} if reference.optimistic else {})}
    targets = rows[list(TARGET_COLUMNS)].to_numpy(np.float64)
    content = {
        "number": reference.number,
        "rows": folder.objective,
        "method": reference.method,
        "source": reference.source,
        "members": [dict(member) for member in reference.members],
        "finished": list(reference.finished),
        "optimistic": reference.optimistic,
        "scores": kl_report(targets, reference.probabilities, rows["total_votes"]),
    }
    with whole_folder(path, if_exists="keep") as draft:
        write_oof(draft / _OOF_FILE, oof)
        (draft / REFERENCE_FILE).write_text(json_text(content), encoding="utf-8")


def n_references(folder: StudyFolder) -> int:
    """Number of stored references, which are numbered from 0."""
    number = 0
    while (_path(folder, number) / REFERENCE_FILE).is_file():
        number += 1
    return number


def read_reference(folder: StudyFolder, number: int, rows: pd.DataFrame) -> Reference:
    """Reads a stored reference.

    Args:
        folder: the study.
        number: of the reference.
        rows: of the study.

    Raises:
        StudyError: if it is missing or damaged.
    """
    file = _path(folder, number) / REFERENCE_FILE
    data = read_json(file, dict, _FIX)
    try:
        return Reference(
            number=int(data["number"]),
            method=str(data["method"]),
            members=list(data["members"]),
            finished=[int(trial) for trial in data["finished"]],
            probabilities=probabilities_of(read_oof(file.with_name(_OOF_FILE), rows)),
            optimistic=bool(data["optimistic"]),
            source=data["source"],
            scores=dict(data["scores"]),
        )
    except PredictionError as error:
        raise StudyError(error.rule, got=error.got, where=error.where, fix=_FIX) from None
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable_file(file, error, _FIX) from None


def _path(folder: StudyFolder, number: int) -> Path:
    return folder.path / REFERENCES / f"{number:04d}"
