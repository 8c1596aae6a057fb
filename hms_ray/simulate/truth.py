"""The truth of a simulated folder: which tier judged a row, and the odds of its votes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.rows import UNIT_KEYS, Unit
from hms_ray.competition.schema import N_CLASSES, VOTE_COLUMNS
from hms_ray.errors import DataError
from hms_ray.simulate.cohort import TIER_TRUTH_COLUMNS, TRUTH_COLUMNS, TRUTH_FILE
from hms_ray.simulate.raters import EXPERT_TIERS

_KEYS: Final = UNIT_KEYS["label"]
_BY_TIER: Final = [column for group in EXPERT_TIERS for column in TIER_TRUTH_COLUMNS[group.name]]


@dataclass(frozen=True)
class TrueOdds:
    """The true odds of a vote for each row.

    Attributes:
        own: (n_rows, 6) float64, for the experts who judged the row.
        by_tier: (n_rows, n_tiers, 6) float64, for experts of each tier.
        tiers: (n_rows, n_tiers) float64, share of each tier in the row's votes.
    """

    own: NDArray[np.float64]
    by_tier: NDArray[np.float64]
    tiers: NDArray[np.float64]

    def without_tier(self, counted: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """A prediction for each row that does not know which tier judged it.

        The odds of all tiers are averaged with weights: how often each tier judges rows with
        the same most likely class (for experts of the last tier). A model that infers the
        tier from more than that class could score lower.

        Args:
            counted: (n_rows,) bool, at least one True: the rows that shares are computed
                from; default: all. Rows of a class that none of them has get the shares
                over all of them.

        Returns:
            (n_rows, 6) float64, each row summing to 1.
        """
        classes = self.by_tier[:, -1].argmax(axis=1)
        if counted is None:
            counted = np.ones(len(classes), bool)
        shares = np.tile(self.tiers[counted].mean(axis=0), (N_CLASSES, 1))
        for number in np.unique(classes[counted]):
            shares[number] = self.tiers[counted & (classes == number)].mean(axis=0)
        mixed: NDArray[np.float64] = np.einsum("nt,ntk->nk", shares[classes], self.by_tier)
        return _normalised(mixed)


def true_odds(
    labels: pd.DataFrame, rows: pd.DataFrame, truth: pd.DataFrame, unit: Unit, where: object
) -> TrueOdds:
    """The true odds of a vote for each row.

    Merged label rows get the mean of their odds, weighted by votes like the targets.

    Args:
        labels: label rows, see ``read_labels``.
        rows: rows made of ``labels`` with ``unit``.
        truth: see ``read_truth``; its label rows that are not in ``labels`` are ignored.
        unit: how label rows became rows.
        where: the truth's file, for messages.

    Raises:
        DataError: if a label row has no truth.
    """
    tiers = [group.name for group in EXPERT_TIERS]
    columns = [*TRUTH_COLUMNS, *_BY_TIER, *tiers]
    merged = labels.merge(truth, on=_KEYS, how="left", validate="1:1")
    missing = merged.loc[merged[TRUTH_COLUMNS[0]].isna(), _KEYS]
    if len(missing):
        eeg_id, sub_id = missing.iloc[0].tolist()
        raise DataError(
            "every label row must have a truth",
            got=f"{len(missing)} without, first eeg_id {eeg_id}, eeg_sub_id {sub_id}",
            where=where,
            fix="Simulate the folder again.",
        )
    for tier in tiers:
        merged[tier] = (merged["tier"] == tier).astype(np.float64)
    weights = merged[list(VOTE_COLUMNS)].sum(axis=1)
    merged[columns] = merged[columns].mul(weights, axis=0)
    keys = UNIT_KEYS[unit]
    sums = merged.groupby(keys, as_index=False)[columns].sum()
    if unit == "label":
        sums["row_id"] = sums["eeg_id"].astype(str) + "-" + sums["eeg_sub_id"].astype(str)
        keys = ["row_id"]
    found = rows[keys].merge(sums, on=keys, how="left", validate="1:1")
    values = found[columns].to_numpy(np.float64)
    own, by_tier, shares = np.split(values, [N_CLASSES, N_CLASSES * (1 + len(tiers))], axis=1)
    return TrueOdds(
        _normalised(own),
        _normalised(by_tier.reshape(len(rows), len(tiers), N_CLASSES)),
        _normalised(shares),
    )


def _normalised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    normalised: NDArray[np.float64] = values / values.sum(axis=-1, keepdims=True)
    return normalised


def read_truth(folder: Path) -> pd.DataFrame:
    """The truth of a simulated folder.

    Returns:
        One line per label row: ``eeg_id``, ``eeg_sub_id``, ``tier``, the odds of the row's
        own experts and those of every tier.

    Raises:
        DataError: if the file is missing or damaged.
    """
    path = folder / TRUTH_FILE
    if not path.is_file():
        raise DataError(
            "oracle KL needs a simulated folder with its truth",
            got=f"no {TRUTH_FILE}",
            where=folder,
            fix="Give a folder written by: hms-ray simulate --out DIR.",
        )
    try:
        truth = pd.read_parquet(path, columns=[*_KEYS, "tier", *TRUTH_COLUMNS, *_BY_TIER])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            "the truth must be a parquet file with the tier and the odds of every label row",
            got=str(error).splitlines()[0],
            where=path,
            fix="Simulate the folder again.",
        ) from error
    if truth.duplicated(_KEYS).any():
        eeg_id, sub_id = truth.loc[truth.duplicated(_KEYS), _KEYS].iloc[0].tolist()
        raise DataError(
            "the truth must have one line per label row",
            got=f"eeg_id {eeg_id}, eeg_sub_id {sub_id} twice",
            where=path,
            fix="Simulate the folder again.",
        )
    return truth
