"""Alignment of models: the same rows, each once, in the order of the targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.blend.external_files import Targets
from hms_ray.blend.row_keys import Keys
from hms_ray.competition.rows import ROW_UNIT
from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.space import Objective
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import Array
from hms_ray.evaluate.shares import Renormalised
from hms_ray.ladder.folder import LADDER_COLUMNS
from hms_ray.text import shortened_list

RowChoice = Literal["same", "common"]

_TOLERANCE: Final = 1e-6
"""Shares rounded to seven decimals count as equal."""


@dataclass(frozen=True)
class Member:
    """One model's predictions and their origin.

    Attributes:
        name: unique among the members.
        ids: (n) unique ids of its rows.
        keys: what the ids identify.
        probabilities: (n, 6) float64.
        origin: plain data that locates the model again.
        family: group of models whose total weight can be limited.
        optimistic: whether its checkpoints or weights were chosen on the scored rows.
        minutes: training time of its folds, if known.
        targets: of its own rows, if its study or ladder has them.
        renormalised: what was renormalised in its file.
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
    renormalised: Renormalised | None = None


@dataclass(frozen=True)
class Aligned:
    """Rows with targets, and the predictions of every model for them.

    Attributes:
        rows: see ``Targets.rows``, in the same order; their unit, if known, is in ``attrs``.
        probabilities: (M, n, 6) float64.
        n_dropped: rows of the targets that some model does not predict.
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
        """(n,) total votes; 0 if unknown."""
        return self.rows["total_votes"].to_numpy(np.float64)


def align(members: Sequence[Member], targets: Targets, choice: RowChoice = "same") -> Aligned:
    """Aligns all models with the rows of the targets.

    Args:
        members: at least one, with unique names.
        targets: of the rows; the targets of members that have their own must be equal.
        choice: ``same``: every model must predict exactly these rows; ``common``: keep the
            rows that all models predict.

    Raises:
        PredictionError: naming models and rows, if rows differ, no row is common, row ids
            are or may be of different units, targets disagree, or a model repeats the
            targets.
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
            "models and targets must have a row in common",
            got="none",
            where=f"{len(members)} model(s) and {targets.name}",
            fix="Check the row ids of the files, and --row-unit.",
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
    """Refuses votes given as a model, because their KL would be 0."""
    for member, predicted in zip(members, aligned.probabilities, strict=True):
        if np.allclose(predicted, aligned.targets, rtol=0, atol=_TOLERANCE):
            raise PredictionError(
                "a model must not repeat the votes",
                got=f"the targets of {name} for every row",
                where=member.name,
                fix="Give the file of votes as --targets only.",
            )


def _one_unit(members: Sequence[Member], targets: Targets) -> Keys | None:
    """The one unit of all row ids; None if no unit is known."""
    # Targets identified by eeg_id have the row ids of the unit eeg.
    units: dict[Keys, str] = {"eeg" if targets.keys == "eeg_id" else targets.keys: targets.name}
    for member in members:
        units.setdefault(member.keys, member.name)
    known = {unit: name for unit, name in units.items() if unit not in ("row_id", "eeg_id")}
    if len(known) > 1:
        raise PredictionError(
            "all row ids must have the same unit",
            got=" and ".join(f"{unit} in {name}" for unit, name in known.items()),
            fix="Blend predictions and targets of experiments with the same data.unit.",
        )
    return next(iter(known), None)


def _require_whole_eegs(
    members: Sequence[Member], targets: Targets, found: dict[str, pd.Index[str]], unit: Keys
) -> None:
    """Refuses row ids of unknown unit that match only some rows of an EEG.

    Row ids of label rows and of vote groups overlap, so a file with the other unit has
    rows in common with the targets. It is recognised by EEGs with only some common rows.
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
                "row ids of unknown unit must match all rows of an EEG or none",
                got=f"EEGs of {targets.name} of which {complaint}",
                fix=f"State the unit of {unsure} with --row-unit eeg_votes, label or eeg; "
                f"other rows have the unit {unit}.",
            )


def _eegs(ids: pd.Index[str]) -> pd.Index[str]:
    """The EEG that a row id begins with, or the row id itself if it is an EEG."""
    return ids.str.replace(r"-[^-]*$", "", regex=True)


def _ids(member: Member, targets: Targets) -> pd.Index[str]:
    """The member's rows by the row ids of the targets; a row not there keeps its own id."""
    if member.keys != "eeg_id" or targets.keys in ("eeg_id", "eeg"):
        return member.ids
    eegs = pd.Index(targets.rows["eeg_id"].astype(str))
    if eegs.has_duplicates:
        raise PredictionError(
            "predictions with only an eeg_id need targets with one row per EEG",
            got=f"{member.name} with the targets of {targets.name}",
            fix="Add row_id, or eeg_id and eeg_sub_id, to each prediction.",
        )
    position = eegs.get_indexer(member.ids)
    named = targets.rows["row_id"].to_numpy()[position]
    ids = np.where(position >= 0, named, member.ids.to_numpy())
    found: pd.Index[str] = pd.Index(ids.tolist(), dtype=member.ids.dtype)
    return found


def _complaint(model: str, lacks: pd.Index[str], more: pd.Index[str], n: int) -> str:
    """The rows that a model lacks of n and has beyond them; empty if none."""
    parts = []
    if len(lacks):
        parts.append(f"{model} lacks {len(lacks)} of {n} ({shortened_list(lacks.tolist())})")
    if len(more):
        parts.append(f"{model} has {len(more)} more ({shortened_list(more.tolist())})")
    return "; ".join(parts)


def _require_same(found: dict[str, pd.Index[str]], known: pd.Index[str], name: str) -> None:
    complaints = []
    for model, ids in found.items():
        lacks, more = known.difference(ids, sort=False), ids.difference(known, sort=False)
        if complaint := _complaint(model, lacks, more, len(known)):
            complaints.append(complaint)
    if complaints:
        raise PredictionError(
            f"models must predict the rows of {name}",
            got=shortened_list(complaints, 3, "; "),
            fix="Use --rows common to keep the rows that all models predict.",
        )


def _require_same_targets(member: Member, rows: pd.DataFrame, name: str) -> None:
    if member.targets is None:
        return
    columns = ["patient_id", "total_votes", *TARGET_COLUMNS]
    own = member.targets.rows.set_index("row_id").reindex(rows["row_id"])[columns]
    mine, named = own.to_numpy(np.float64), rows[columns].to_numpy(np.float64)
    # Rows that the study itself lacks are NaN and count as equal.
    apart = np.abs(mine - named) > _TOLERANCE
    # An unknown total agrees with any.
    apart[:, 1] &= (mine[:, 1] > 0) & (named[:, 1] > 0)
    wrong = np.flatnonzero(apart.any(axis=1))
    if len(wrong):
        row, column = wrong[0], int(np.argmax(apart[wrong[0]]))
        raise PredictionError(
            "a row must have the same targets, patient and total votes in all inputs",
            got=f"{columns[column]} {mine[row, column]:.7g} in {member.targets.name} and "
            f"{named[row, column]:.7g} in {name}",
            where=f"{len(wrong)} row(s): {shortened_list(rows['row_id'].iloc[wrong].tolist())}",
            fix="Blend models of the same version of the data.",
        )


def as_targets(
    rows: pd.DataFrame, keys: Keys, name: str, objective: Objective | None = None
) -> Targets:
    """The rows of a study or a ladder as targets; a study also has an objective."""
    return Targets(
        rows[list(LADDER_COLUMNS)].reset_index(drop=True), keys, name, objective=objective
    )
