"""Rows without any usable signal in some source: counted, kept, dropped or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.dataset.sources import ROW_COLUMNS
from hms_ray.errors import DataError
from hms_ray.pack.store import Pack
from hms_ray.text import counted, shortened_list

Policy = Literal["keep", "drop", "error"]

_DONE = {"keep": "kept as zeros", "drop": "dropped"}


def missing_shares(rows: pd.DataFrame, packs: Mapping[str, Pack]) -> pd.DataFrame:
    """How much of each row's window is missing, by source.

    Args:
        rows: training rows.
        packs: key -> pack; of several recipes of a source the largest share counts.

    Returns:
        float64 columns ``missing_<source>``, from 0 to 1, indexed like ``rows``.
    """
    shares = pd.DataFrame(index=rows.index)
    for pack in packs.values():
        name = f"missing_{pack.source}"
        share = pack.missing_share(*_windows(rows, pack))
        shares[name] = np.maximum(shares[name], share) if name in shares else share
    return shares


def sort_out(
    rows: pd.DataFrame, packs: Mapping[str, Pack], policy: Policy
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Which rows stay, and what to say about those without a usable signal.

    Args:
        rows: training rows.
        packs: key -> pack of every source that the study reads.
        policy: ``data.unusable``.

    Returns:
        bool (N,), and a line for each pack that has such rows.

    Raises:
        DataError: by the policy ``error``, naming the first rows and how many.
    """
    staying = np.ones(len(rows), dtype=bool)
    lines = []
    for key, pack in packs.items():
        usable = pack.usable(*_windows(rows, pack))
        if usable.all():
            continue
        ids = rows["row_id"][~usable].tolist()
        first = shortened_list(ids, 3)
        if policy == "error":
            raise DataError(
                "every row must have a usable signal in each source",
                got=f"{len(ids)} without: {first}",
                where=f"source {key}",
                fix="See data.unusable: keep takes them as zeros, drop leaves them out.",
            )
        lines.append(
            f"{key}: {counted(len(ids), 'row')} without a usable signal, {_DONE[policy]}: {first}"
        )
        if policy == "drop":
            staying &= usable
    return staying, tuple(lines)


def _windows(rows: pd.DataFrame, pack: Pack) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    recording, start = ROW_COLUMNS[pack.source]
    return rows[recording].to_numpy(np.int64), rows[start].to_numpy(np.int64)
