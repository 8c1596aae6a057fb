"""The KL that a perfect model still has on drawn votes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.read import read_labels
from hms_ray.competition.rows import Unit, Window, make_rows
from hms_ray.competition.schema import TARGET_COLUMNS, VOTE_COLUMNS, VOTE_TIERS
from hms_ray.errors import DataError
from hms_ray.evaluate.metric import OBJECTIVES, kl_rows
from hms_ray.simulate.folder import TRUTH_COLUMNS, TRUTH_FILE

_KEYS: Final = ["eeg_id", "eeg_sub_id"]
_ROW_KEYS: Final[dict[str, list[str]]] = {
    "eeg_votes": ["eeg_id", *VOTE_COLUMNS],
    "eeg": ["eeg_id"],
    "label": list(_KEYS),
}


@dataclass(frozen=True)
class FloorLine:
    """One group of rows.

    Attributes:
        name: which rows: ``all``, ``>=4``, ``>=10`` or a disjoint tier of total votes.
        n_rows: how many they are.
        perfect: mean KL of the true odds of a vote, nats; None without rows.
        class_mean: mean KL of the mean target of all rows, nats; None without rows.
    """

    name: str
    n_rows: int
    perfect: float | None
    class_mean: float | None


@dataclass(frozen=True)
class FloorReport:
    """What a model can reach on a simulated folder.

    Attributes:
        folder: the simulated folder.
        unit: the row unit scored.
        cumulative: all rows, rows of at least 4 and of at least 10 votes.
        tiers: rows by disjoint tier of total votes.
        row_ids: the rows that were scored.
        total_votes: their votes.
    """

    folder: str
    unit: str
    cumulative: tuple[FloorLine, ...]
    tiers: tuple[FloorLine, ...]
    row_ids: tuple[str, ...] = field(repr=False)
    total_votes: tuple[int, ...] = field(repr=False)

    def to_json(self) -> str:
        """The report as a JSON object, floats in full."""
        data = asdict(self)
        del data["row_ids"], data["total_votes"]
        return json.dumps(data, indent=2)

    def to_text(self) -> str:
        """The report as a table of at most 80 columns."""
        lines = [
            "KL that remains on the drawn votes (nats)",
            f"{'rows':<8}{'number':>8}{'perfect model':>16}{'class means':>14}",
        ]
        for title, group in (("cumulative", self.cumulative), ("by tier", self.tiers)):
            lines.append(f"-- {title}")
            lines += [
                f"{line.name:<8}{line.n_rows:>8}{_number(line.perfect):>16}"
                f"{_number(line.class_mean):>14}"
                for line in group
            ]
        return "\n".join(lines)

    def closed(self, scores: Mapping[str, float | None]) -> dict[str, float | None]:
        """How much of the way from the class means to the floor scores have gone.

        Args:
            scores: ``kl_all``, ``kl_4`` and ``kl_10`` in nats, on these rows.

        Returns:
            Shares by the same names: 0 at the class means, 1 at the floor.
        """
        shares: dict[str, float | None] = {}
        for name, line in zip(OBJECTIVES, self.cumulative, strict=True):
            score = scores.get(name)
            if score is None or line.perfect is None or line.class_mean is None:
                shares[name] = None
            else:
                shares[name] = (line.class_mean - score) / (line.class_mean - line.perfect)
        return shares

    def distance_text(self, scores: Mapping[str, Mapping[str, float | None]]) -> str:
        """A table of at most 80 columns: how far named scores have gone, by rows."""
        width = max(len(name) for name in scores)
        lines = ["share of the way from the class means to the perfect model, simulated data"]
        heads = "".join(f"{line.name:>9}" for line in self.cumulative)
        lines.append(f"{'':<{width}}{heads}")
        for name, values in scores.items():
            cells = "".join(f"{_share(value):>9}" for value in self.closed(values).values())
            lines.append(f"{name:<{width}}{cells}")
        return "\n".join(lines)

    def require_rows(self, rows: pd.DataFrame) -> None:
        """Makes sure that scores were made on this folder's rows.

        Raises:
            DataError: where rows or their votes are other ones.
        """
        if list(rows["row_id"]) != list(self.row_ids) or list(rows["total_votes"]) != list(
            self.total_votes
        ):
            raise DataError(
                "scores can be held against the floor of their own rows only",
                got=f"{len(rows)} other rows",
                where=self.folder,
                fix="Give the folder that the study was trained on.",
            )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def floor(
    folder: str | os.PathLike[str], unit: Unit = "eeg_votes", window: Window = "middle"
) -> FloorReport:
    """Score the truth, and the class means, against the votes of a simulated folder.

    A perfect model predicts the true odds of a vote for the row's own experts. Where label
    rows were merged, the odds are their mean, weighted by votes like the merged targets.

    Args:
        folder: a folder written by ``simulate_folder``.
        unit: how label rows become rows, see ``make_rows``.
        window: see ``make_rows``; it does not change the result.

    Raises:
        DataError: the folder holds no truth, or one that does not fit its labels.
    """
    folder = Path(folder)
    truth = _read_truth(folder)
    labels = read_labels(folder)
    rows = make_rows(labels, unit, window)
    perfect = true_odds(labels, rows, truth, unit, where=folder / TRUTH_FILE)
    targets = rows[list(TARGET_COLUMNS)].to_numpy(np.float64)
    means = np.broadcast_to(targets.mean(axis=0), targets.shape)
    scores = (kl_rows(targets, perfect), kl_rows(targets, means))
    votes = rows["total_votes"].to_numpy()
    cumulative = (("all", 1, None), (">=4", 4, None), (">=10", 10, None))
    return FloorReport(
        str(folder),
        unit,
        tuple(_line(name, low, high, votes, scores) for name, low, high in cumulative),
        tuple(_line(name, low, high, votes, scores) for name, low, high in VOTE_TIERS),
        tuple(rows["row_id"]),
        tuple(votes.tolist()),
    )


def true_odds(
    labels: pd.DataFrame, rows: pd.DataFrame, truth: pd.DataFrame, unit: Unit, where: object
) -> NDArray[np.float64]:
    """The true odds of a vote for each row.

    Args:
        labels: label rows as of ``read_labels``.
        rows: the rows made of them with ``unit``.
        truth: one line a label row with ``eeg_id``, ``eeg_sub_id`` and ``TRUTH_COLUMNS``.
        unit: how label rows became rows.
        where: the truth's file, for messages.

    Returns:
        (n_rows, 6) float64, each row summing to 1.

    Raises:
        DataError: label rows without truth.
    """
    merged = labels.merge(truth[[*_KEYS, *TRUTH_COLUMNS]], on=_KEYS, how="left", validate="1:1")
    missing = merged.loc[merged[TRUTH_COLUMNS[0]].isna(), _KEYS]
    if len(missing):
        eeg_id, sub_id = missing.iloc[0].tolist()
        raise DataError(
            "every label row must have its truth",
            got=f"{len(missing)} without, first eeg_id {eeg_id}, eeg_sub_id {sub_id}",
            where=where,
            fix="Simulate the folder again.",
        )
    columns = list(TRUTH_COLUMNS)
    weights = merged[list(VOTE_COLUMNS)].sum(axis=1)
    merged[columns] = merged[columns].mul(weights, axis=0)
    sums = merged.groupby(_ROW_KEYS[unit], as_index=False)[columns].sum()
    keys = _ROW_KEYS[unit]
    if unit == "label":
        sums["row_id"] = sums["eeg_id"].astype(str) + "-" + sums["eeg_sub_id"].astype(str)
        keys = ["row_id"]
    odds = rows[keys].merge(sums, on=keys, how="left", validate="1:1")[columns].to_numpy(np.float64)
    normalised: NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
    return normalised


def _read_truth(folder: Path) -> pd.DataFrame:
    path = folder / TRUTH_FILE
    if not path.is_file():
        raise DataError(
            "the floor is known only where the truth is",
            got=f"no {TRUTH_FILE}",
            where=folder,
            fix="Give a folder written by: hms-ray simulate --out DIR",
        )
    try:
        truth = pd.read_parquet(path, columns=[*_KEYS, *TRUTH_COLUMNS])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            "the truth must be a parquet file with the six true odds of every label row",
            got=str(error).splitlines()[0],
            where=path,
            fix="Simulate the folder again.",
        ) from error
    if truth.duplicated(_KEYS).any():
        eeg_id, sub_id = truth.loc[truth.duplicated(_KEYS), _KEYS].iloc[0].tolist()
        raise DataError(
            "the truth must name every label row once",
            got=f"eeg_id {eeg_id}, eeg_sub_id {sub_id} twice",
            where=path,
            fix="Simulate the folder again.",
        )
    return truth


def _line(
    name: str,
    low: int,
    high: int | None,
    votes: NDArray[np.int64],
    scores: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> FloorLine:
    chosen = (votes >= low) & (votes <= (np.inf if high is None else high))
    if not chosen.any():
        return FloorLine(name, 0, None, None)
    perfect, means = (float(score[chosen].mean()) for score in scores)
    return FloorLine(name, int(chosen.sum()), perfect, means)
