"""Models on the same rows: each row once, with its target, in one order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.blending.columns import Keys
from hms_ray.blending.files import ROW_COLUMNS, Targets
from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config import Objective
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import Array, name_rows

RowChoice = Literal["same", "common"]

_SHOWN: Final = 3
"""Models that an error names."""
_SAME: Final = 1e-6
"""Shares that were written down with seven decimals are still the same."""


@dataclass(frozen=True)
class Member:
    """One model's predictions and where they are from.

    Attributes:
        name: different from the others'.
        ids: (n) keys of its rows, none twice.
        keys: how its rows are called.
        probabilities: (n, 6) float64.
        origin: plain data that finds the model again.
        family: of the model, for caps and for weights in two levels.
        optimistic: whether its checkpoints were chosen on the scored rows.
        minutes: training time of its folds; None where it is not known.
        targets: of its own rows, where its study or ladder has them.
    """

    name: str
    ids: pd.Index[str]
    keys: Keys
    probabilities: Array
    origin: dict[str, Any]
    family: str
    optimistic: bool = False
    minutes: float | None = None
    targets: Targets | None = None


@dataclass(frozen=True)
class Aligned:
    """Rows with targets, and every model's predictions of them.

    Attributes:
        rows: columns of ``Targets.rows``, in its order.
        probabilities: (M, n, 6) float64.
        n_dropped: rows of the targets that not all models predict.
    """

    rows: pd.DataFrame
    probabilities: Array
    n_dropped: int

    @property
    def targets(self) -> Array:
        """(n, 6) vote shares."""
        return self.rows[list(TARGET_COLUMNS)].to_numpy(np.float64)

    @property
    def patients(self) -> NDArray[np.int64]:
        """(n,) patient of each row."""
        return self.rows["patient_id"].to_numpy(np.int64)

    @property
    def votes(self) -> Array:
        """(n,) total votes, 0 where they are not known."""
        return self.rows["total_votes"].to_numpy(np.float64)


def align(members: Sequence[Member], targets: Targets, choice: RowChoice = "same") -> Aligned:
    """Brings all models to the rows of the targets.

    Args:
        members: at least one, of different names.
        targets: of the rows; those of members that know theirs must be the same.
        choice: ``same``: every model must predict exactly these rows; ``common``: rows
            that are not everywhere are dropped.

    Raises:
        PredictionError: naming models and rows, where rows differ, none are common,
            keys cannot be matched, or targets disagree.
    """
    known = pd.Index(targets.rows["row_id"])
    found = {member.name: _ids(member, targets) for member in members}
    if choice == "same":
        _require_same(found, known, targets.name)
    common = np.ones(len(known), dtype=np.bool_)
    for ids in found.values():
        common &= known.isin(ids)
    if not common.any():
        raise PredictionError(
            "models and targets must have rows in common",
            got="none",
            where=f"{len(members)} model(s) and {targets.name}",
        )
    rows = targets.rows[common].reset_index(drop=True)
    kept = pd.Index(rows["row_id"])
    for member in members:
        _require_same_targets(member, rows, targets.name)
    stack = [member.probabilities[found[member.name].get_indexer(kept)] for member in members]
    return Aligned(rows, np.stack(stack), int((~common).sum()))


def _ids(member: Member, targets: Targets) -> pd.Index[str]:
    """The member's rows as the targets call them; a foreign row keeps its own key."""
    if member.keys == "label" and targets.keys != "label":
        raise PredictionError(
            "predictions named by eeg_id and eeg_sub_id need targets of label rows",
            got=f"{member.name} with the targets of {targets.name}",
            fix="Name the rows by the row_id of those targets.",
        )
    if member.keys != "eeg_id" or targets.keys == "eeg_id":
        return member.ids
    eegs = pd.Index(targets.rows["eeg_id"].astype(str))
    if eegs.has_duplicates:
        raise PredictionError(
            "predictions named by eeg_id alone need targets with one row an EEG",
            got=f"{member.name} with the targets of {targets.name}",
            fix="Give the row_id, or the eeg_id and eeg_sub_id, of each prediction.",
        )
    position = eegs.get_indexer(member.ids)
    named = targets.rows["row_id"].to_numpy()[position]
    ids = np.where(position >= 0, named, member.ids.to_numpy())
    found: pd.Index[str] = pd.Index(ids.tolist(), dtype=member.ids.dtype)
    return found


def _require_same(found: dict[str, pd.Index[str]], known: pd.Index[str], name: str) -> None:
    complaints = []
    for model, ids in found.items():
        lacks, more = known.difference(ids, sort=False), ids.difference(known, sort=False)
        if len(lacks):
            complaints.append(
                f"{model} lacks {len(lacks)} of {len(known)} ({name_rows(lacks.to_numpy())})"
            )
        if len(more):
            complaints.append(f"{model} has {len(more)} more ({name_rows(more.to_numpy())})")
    if complaints:
        hidden = len(complaints) - _SHOWN
        raise PredictionError(
            f"models must predict the rows of {name}",
            got="; ".join(complaints[:_SHOWN]) + (f"; and {hidden} more" if hidden > 0 else ""),
            fix="With --rows common, rows that are not everywhere are dropped.",
        )


def _require_same_targets(member: Member, rows: pd.DataFrame, name: str) -> None:
    if member.targets is None:
        return
    own = member.targets.rows.set_index("row_id").reindex(rows["row_id"])
    columns = ["patient_id", "total_votes", *TARGET_COLUMNS]
    apart = np.abs(own[columns].to_numpy(np.float64) - rows[columns].to_numpy(np.float64))
    # Rows that the study itself lacks are NaN and compare as equal.
    wrong = np.flatnonzero((apart > _SAME).any(axis=1))
    if len(wrong):
        raise PredictionError(
            "targets, patients and total votes of a row must be the same everywhere",
            got=f"others in {member.targets.name} than in {name}",
            where=f"{len(wrong)} row(s): {name_rows(rows['row_id'].to_numpy()[wrong])}",
        )


def as_targets(
    rows: pd.DataFrame, keys: Keys, name: str, objective: Objective | None = None
) -> Targets:
    """The rows of a study or a ladder as targets; the objective is a study's."""
    kept = rows[list(ROW_COLUMNS)].reset_index(drop=True)
    return Targets(kept, keys, name, objective=objective)
