"""What ``blend.json`` says of a blend: its members and its fitted pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.schema import N_CLASSES
from hms_ray.ensemble.methods.arithmetic import FittedMean
from hms_ray.ensemble.methods.base import FittedPool
from hms_ray.ensemble.methods.combined import FittedAverage, FittedRecalibrated
from hms_ray.ensemble.methods.registry import fitted_from_json
from hms_ray.errors import PredictionError, StudyError
from hms_ray.evaluate.metric import Array
from hms_ray.storage.structured_files import read_json

_FIX = "Blend again: hms-ray blend STUDY"


@dataclass(frozen=True)
class Member:
    """One of the models that are blended.

    Attributes:
        name: unlike all others'.
        keys: fold -> address in the store; None where they are not known, as of
            predictions that were brought from elsewhere.
    """

    name: str
    keys: Mapping[int, str] | None


@dataclass(frozen=True)
class StoredBlend:
    """What ``blend.json`` says of a blend.

    Attributes:
        method: name of the pool's method.
        pool: as it was fitted.
        members: in the order of the fit.
    """

    method: str
    pool: FittedPool
    members: tuple[Member, ...]

    def needed(self) -> tuple[Member, ...]:
        """The members that the pool looks at: a mean leaves out models of weight 0."""
        counts = _looked_at(self.pool, len(self.members))
        return tuple(m for m, count in zip(self.members, counts, strict=True) if count)


def _looked_at(pool: FittedPool, n_members: int) -> NDArray[np.bool_]:
    """Whether each of the (M,) members can change what a pool predicts."""
    counts: NDArray[np.bool_] = np.ones(n_members, dtype=np.bool_)
    match pool:
        case FittedMean():
            counts = pool.weights > 0
        case FittedRecalibrated():
            counts = _looked_at(pool.member, n_members)
        case FittedAverage():
            used = [part for part, weight in zip(pool.members, pool.weights, strict=True) if weight]
            counts = np.any([_looked_at(part, n_members) for part in used], axis=0)
    return counts


def read_blend(file: Path) -> StoredBlend:
    """Reads a fitted blend.

    Raises:
        StudyError: where the file is damaged or lacks what must be in it.
        PredictionError: for a pool that is broken, of an unknown form or of another
            number of members; it names the file.
    """
    if file.is_dir():
        raise PredictionError(
            "a blend to apply must be a file",
            got="a folder",
            where=file,
            fix="Name its blend.json.",
        )
    if not file.is_file():
        raise PredictionError("a blend must exist to be applied", got="none", where=file, fix=_FIX)
    data = read_json(file, dict, _FIX)
    absent = [name for name in ("method", "pool", "members") if name not in data]
    if absent:
        raise StudyError(
            "a blend's file must have its method, pool and members",
            got=f"no {', no '.join(absent)}",
            where=file,
            fix=_FIX,
        )
    try:
        members = tuple(_member(told) for told in data["members"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StudyError(
            "each member of a blend must have its name, and keys by the numbers of folds or none",
            got=f"{type(error).__name__}: {error}",
            where=file,
            fix=_FIX,
        ) from None
    names = [member.name for member in members]
    if len(set(names)) < len(names) or not names:
        raise PredictionError(
            "the members of a blend must have names of their own",
            got=", ".join(names) or "no member",
            where=file,
            fix=_FIX,
        )
    return StoredBlend(str(data["method"]), _pool(data["pool"], len(members), file), members)


def _pool(described: Any, n_members: int, file: Path) -> FittedPool:
    """A fitted pool of so many members; errors as of ``read_blend``."""
    try:
        fitted = fitted_from_json(described)
    except PredictionError as error:
        place = file if error.where is None else f"{file}, {error.where}"
        raise PredictionError(error.rule, got=error.got, where=place, fix=_FIX) from None
    try:
        # A pool of other members must be found out before any model runs.
        fitted.predict(even_shares(n_members, 1))
    except PredictionError as error:
        raise PredictionError(
            f"the pool of a blend must combine its {n_members} member(s)",
            got=f"another one: {error.rule}",
            where=file,
            fix=_FIX,
        ) from None
    return fitted


def _member(told: Mapping[str, Any]) -> Member:
    keys = told.get("keys")
    if keys is None:
        return Member(str(told["name"]), None)
    return Member(str(told["name"]), {int(fold): str(key) for fold, key in keys.items()})


def even_shares(n_models: int, n_rows: int) -> Array:
    """Equal shares, in the place of what a pool does not look at."""
    return np.full((n_models, n_rows, N_CLASSES), 1 / N_CLASSES)
