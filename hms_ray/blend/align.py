"""Models on the same rows: each row once, with its target, in one order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.blend.column_names import Keys
from hms_ray.blend.external_files import ROW_COLUMNS, Targets
from hms_ray.competition.rows import ROW_UNIT
from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.space import Objective
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
        optimistic: whether its checkpoints or weights were chosen on the scored rows.
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
        rows: columns of ``Targets.rows``, in its order; files of them carry the unit of
            the row ids, where it is known, as an attribute.
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
            keys are of different units or may be, targets disagree, or a model repeats
            the targets.
    """
    unit = _one_unit(members, targets)
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
    if unit is not None:
        _require_whole_eegs(members, targets, found, unit)
    rows = targets.rows[common].reset_index(drop=True)
    rows.attrs = {} if unit is None else {ROW_UNIT: unit}
    kept = pd.Index(rows["row_id"])
    for member in members:
        _require_same_targets(member, rows, targets.name)
    stack = [member.probabilities[found[member.name].get_indexer(kept)] for member in members]
    aligned = Aligned(rows, np.stack(stack), int((~common).sum()))
    _refuse_targets(members, aligned, targets.name)
    return aligned


def _refuse_targets(members: Sequence[Member], aligned: Aligned, name: str) -> None:
    """Refuses votes that were given as a model: it would be a perfect one."""
    for member, predicted in zip(members, aligned.probabilities, strict=True):
        if np.allclose(predicted, aligned.targets, rtol=0, atol=_SAME):
            raise PredictionError(
                "a model must predict, not repeat the votes",
                got=f"the targets of {name} for every row",
                where=member.name,
                fix="Give the file of votes as --targets only.",
            )


def _one_unit(members: Sequence[Member], targets: Targets) -> Keys | None:
    """The unit of all row ids whose unit is known; None where none is.

    Raises:
        PredictionError: where they are of two.
    """
    # Targets that are named by their EEGs have the row ids of the unit eeg.
    units: dict[Keys, str] = {"eeg" if targets.keys == "eeg_id" else targets.keys: targets.name}
    for member in members:
        units.setdefault(member.keys, member.name)
    known = {unit: name for unit, name in units.items() if unit not in ("row_id", "eeg_id")}
    if len(known) > 1:
        raise PredictionError(
            "rows must be of one unit: the same row id is another row in another unit",
            got=" and ".join(f"{unit} in {name}" for unit, name in known.items()),
            fix="Blend predictions and targets whose experiments have one data.unit.",
        )
    return next(iter(known), None)


def _require_whole_eegs(
    members: Sequence[Member], targets: Targets, found: dict[str, pd.Index[str]], unit: Keys
) -> None:
    """Refuses rows of unknown unit that part of an EEG's rows do not fit.

    Row ids of label rows and of vote groups overlap, so that a file of the other unit
    would have rows in common. What differs then are rows of EEGs that both sides have.
    """
    known = pd.Index(targets.rows["row_id"])
    for member in members:
        if "row_id" not in (member.keys, targets.keys) or member.keys == "eeg_id":
            continue
        ids = found[member.name]
        shared = set(_eegs(ids)) & set(_eegs(known))
        lacks, more = (
            rows[_eegs(rows).isin(shared)]
            for rows in (known.difference(ids, sort=False), ids.difference(known, sort=False))
        )
        if len(lacks) or len(more):
            complaint = _complaint(member.name, lacks, more, len(known))
            unsure = member.name if member.keys == "row_id" else targets.name
            raise PredictionError(
                "row ids of an unknown unit must have all rows of an EEG or none",
                got=f"EEGs of {targets.name} of which {complaint}",
                fix=f"Other rows are of {unit}. Say what the row ids of {unsure} are: "
                "--row-unit eeg_votes, label or eeg.",
            )


def _eegs(ids: pd.Index[str]) -> pd.Index[str]:
    """The EEG that a row id begins with; the row id itself where it is an EEG."""
    return ids.str.replace(r"-[^-]*$", "", regex=True)


def _ids(member: Member, targets: Targets) -> pd.Index[str]:
    """The member's rows as the targets call them; a foreign row keeps its own key."""
    if member.keys != "eeg_id" or targets.keys in ("eeg_id", "eeg"):
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


def _complaint(model: str, lacks: pd.Index[str], more: pd.Index[str], n: int) -> str:
    """Which rows a model lacks and has beyond n; empty where neither."""
    parts = []
    if len(lacks):
        parts.append(f"{model} lacks {len(lacks)} of {n} ({name_rows(lacks.to_numpy())})")
    if len(more):
        parts.append(f"{model} has {len(more)} more ({name_rows(more.to_numpy())})")
    return "; ".join(parts)


def _require_same(found: dict[str, pd.Index[str]], known: pd.Index[str], name: str) -> None:
    complaints = []
    for model, ids in found.items():
        lacks, more = known.difference(ids, sort=False), ids.difference(known, sort=False)
        if complaint := _complaint(model, lacks, more, len(known)):
            complaints.append(complaint)
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
    columns = ["patient_id", "total_votes", *TARGET_COLUMNS]
    own = member.targets.rows.set_index("row_id").reindex(rows["row_id"])[columns]
    mine, named = own.to_numpy(np.float64), rows[columns].to_numpy(np.float64)
    # Rows that the study itself lacks are NaN and compare as equal.
    apart = np.abs(mine - named) > _SAME
    # A total that a file does not know contradicts none.
    apart[:, 1] &= (mine[:, 1] > 0) & (named[:, 1] > 0)
    wrong = np.flatnonzero(apart.any(axis=1))
    if len(wrong):
        row, column = wrong[0], int(np.argmax(apart[wrong[0]]))
        raise PredictionError(
            "targets, patients and total votes of a row must be the same everywhere",
            got=f"{columns[column]} {mine[row, column]:.7g} in {member.targets.name} and "
            f"{named[row, column]:.7g} in {name}",
            where=f"{len(wrong)} row(s): {name_rows(rows['row_id'].to_numpy()[wrong])}",
        )


def as_targets(
    rows: pd.DataFrame, keys: Keys, name: str, objective: Objective | None = None
) -> Targets:
    """The rows of a study or a ladder as targets; the objective is a study's."""
    kept = rows[list(ROW_COLUMNS)].reset_index(drop=True)
    return Targets(kept, keys, name, objective=objective)
