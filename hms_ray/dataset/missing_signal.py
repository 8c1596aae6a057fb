"""Rows without any usable signal in a source: reported, then kept, dropped or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.dataset.sources import WINDOW_COLUMNS
from hms_ray.errors import DataError
from hms_ray.pack.store import Pack
from hms_ray.text import counted, shortened_list

Policy = Literal["keep", "drop", "error"]

_DONE = {"keep": "zero-filled", "drop": "dropped"}


def missing_shares(rows: pd.DataFrame, packs: Mapping[str, Pack]) -> pd.DataFrame:
    """Share of each row's window that is missing, by source.

    If a source has packs of several recipes, the largest share counts.

    Returns:
        float64 columns ``missing_<source>``, from 0 to 1, indexed like ``rows``.
    """
    shares = pd.DataFrame(index=rows.index)
    for pack in packs.values():
        name = f"missing_{pack.source}"
        share = pack.missing_share(*_windows(rows, pack))
        shares[name] = np.maximum(shares[name], share) if name in shares else share
    return shares


def apply_missing_signal_policy(
    rows: pd.DataFrame, packs: Mapping[str, Pack], policy: Policy, what: str = "row"
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Finds the rows without a usable signal in any pack and applies ``data.unusable``.

    Args:
        rows: training rows or others with their columns.
        packs: with the windows of the rows.
        policy: ``data.unusable``.
        what: a row is in messages.

    Returns:
        Whether each row is kept, bool (N,); one line for each pack with such rows.

    Raises:
        DataError: if the policy is ``error`` and there are such rows.
    """
    kept = np.ones(len(rows), dtype=bool)
    lines = []
    for key, pack in packs.items():
        usable = pack.usable(*_windows(rows, pack))
        if usable.all():
            continue
        ids = rows["row_id"][~usable].tolist()
        first = shortened_list(ids, 3)
        if policy == "error":
            raise DataError(
                f"every {what} must have a usable signal in each source",
                got=f"{counted(len(ids), what)} without: {first}",
                where=f"source {key}",
                fix="Set data.unusable to keep (zero-filled) or drop.",
            )
        lines.append(
            f"{key}: {counted(len(ids), what)} without a usable signal, {_DONE[policy]}: {first}"
        )
        if policy == "drop":
            kept &= usable
    return kept, tuple(lines)


def _windows(rows: pd.DataFrame, pack: Pack) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    recording, start = WINDOW_COLUMNS[pack.source]
    return rows[recording].to_numpy(np.int64), rows[start].to_numpy(np.int64)
