"""Reading a fitted blend from its ``blend.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.schema import N_CLASSES
from hms_ray.competition.tables import Columns
from hms_ray.ensemble.methods.arithmetic import FittedMean
from hms_ray.ensemble.methods.base import FittedMethod
from hms_ray.ensemble.methods.combined import FittedAverage, FittedRecalibrated, fitted_from_json
from hms_ray.errors import PredictionError, StudyError
from hms_ray.evaluate.metric import Array
from hms_ray.storage.structured_files import read_json

_FIX = "Run hms-ray blend again."


@dataclass(frozen=True)
class StoredMember:
    """A member of a stored blend.

    Attributes:
        name: unique.
        keys: fold -> cache key; None if unknown, as for predictions made elsewhere.
        columns: names of columns in the file that it was fitted on, if it is a file.
    """

    name: str
    keys: Mapping[int, str] | None
    columns: Columns = field(default_factory=dict)


@dataclass(frozen=True)
class StoredBlend:
    """A fitted blend.

    Attributes:
        method: name of the method.
        fitted: the fitted method.
        members: in the order of the fit.
        optimistic: whether a member's checkpoints or weights were chosen on the rows that it
            was fitted on.
    """

    method: str
    fitted: FittedMethod
    members: tuple[StoredMember, ...]
    optimistic: bool = False

    def needed(self) -> tuple[StoredMember, ...]:
        """The members that can change the predictions: a mean ignores models of weight 0."""
        counts = _has_weight(self.fitted, len(self.members))
        return tuple(m for m, count in zip(self.members, counts, strict=True) if count)

    def predict(self, parts: Mapping[str, Array]) -> Array:
        """Blended probabilities, (n, 6) float64.

        Args:
            parts: name of each needed member -> its probabilities (n, 6) float64.
        """
        n_rows = len(next(iter(parts.values())))
        (unused,) = even_shares(1, n_rows)
        stack = np.stack([parts.get(member.name, unused) for member in self.members])
        return self.fitted.predict(stack)

    def without_models(self) -> list[str]:
        """Names of the needed members that have no fold models in the fold store."""
        return [member.name for member in self.needed() if member.keys is None]


def _has_weight(fitted: FittedMethod, n_members: int) -> NDArray[np.bool_]:
    """Mask (M,) of the members that can change the predictions."""
    counts: NDArray[np.bool_] = np.ones(n_members, dtype=np.bool_)
    match fitted:
        case FittedMean():
            counts = fitted.weights > 0
        case FittedRecalibrated():
            counts = _has_weight(fitted.member, n_members)
        case FittedAverage():
            parts = zip(fitted.members, fitted.weights, strict=True)
            used = [part for part, weight in parts if weight]
            counts = np.any([_has_weight(part, n_members) for part in used], axis=0)
    return counts


def read_blend(file: Path) -> StoredBlend:
    """Reads a fitted blend.

    Raises:
        StudyError: if the file is damaged or lacks fields, as one of an earlier version does.
        PredictionError: naming the file, if the fitted method is invalid or has another
            number of members.
    """
    data = read_json(file, dict, _FIX)
    absent = [name for name in ("method", "fitted", "members") if name not in data]
    if absent:
        raise StudyError(
            "a blend file must have the fields method, fitted and members",
            got=f"no {', no '.join(absent)}",
            where=file,
            fix=_FIX,
        )
    try:
        members = tuple(_member(described) for described in data["members"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StudyError(
            "each member of a blend must have a name, and its keys by fold if any",
            got=f"{type(error).__name__}: {error}",
            where=file,
            fix=_FIX,
        ) from None
    names = [member.name for member in members]
    if len(set(names)) < len(names) or not names:
        raise PredictionError(
            "the members of a blend must have unique names",
            got=", ".join(names) or "no member",
            where=file,
            fix=_FIX,
        )
    return StoredBlend(
        method=str(data["method"]),
        fitted=_fitted(data["fitted"], len(members), file),
        members=members,
        optimistic=bool(data.get("optimistic", False)),
    )


def _fitted(stored: Any, n_members: int, file: Path) -> FittedMethod:
    """The fitted method, checked to combine this number of members."""
    try:
        fitted = fitted_from_json(stored)
    except PredictionError as error:
        place = file if error.where is None else f"{file}, {error.where}"
        raise PredictionError(error.rule, got=error.got, where=place, fix=_FIX) from None
    try:
        # A wrong number of members must be found before any model runs.
        fitted.predict(even_shares(n_members, 1))
    except PredictionError as error:
        raise PredictionError(
            f"the fitted method of a blend must combine its {n_members} member(s)",
            got=f"another number: {error.rule}",
            where=file,
            fix=_FIX,
        ) from None
    return fitted


def _member(described: Mapping[str, Any]) -> StoredMember:
    keys = described.get("keys")
    if keys is None:
        return StoredMember(str(described["name"]), None, dict(described.get("columns", {})))
    return StoredMember(str(described["name"]), {int(fold): str(key) for fold, key in keys.items()})


def even_shares(n_models: int, n_rows: int) -> Array:
    """Equal shares (M, n, 6), for members that are not used."""
    return np.full((n_models, n_rows, N_CLASSES), 1 / N_CLASSES)
