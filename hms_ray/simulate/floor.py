"""The KL that a model which knows the truth still has on drawn votes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.read import LABEL_FILE, read_labels
from hms_ray.competition.rows import Unit, Window, make_rows
from hms_ray.competition.schema import TARGET_COLUMNS, VOTE_TIERS
from hms_ray.errors import DataError
from hms_ray.evaluate.metric import OBJECTIVES, kl_rows
from hms_ray.simulate.tables import LABEL_TABLE_FILE, TRUTH_FILE
from hms_ray.simulate.truth import read_truth, true_odds

Floor = Literal["perfect", "tier_unknown"]
FLOORS: Final[dict[Floor, str]] = {
    "perfect": "the perfect model",
    "tier_unknown": "one that does not know who voted",
}


@dataclass(frozen=True)
class FloorLine:
    """One group of rows.

    Attributes:
        name: which rows: ``all``, ``>=4``, ``>=10`` or a disjoint tier of total votes.
        n_rows: how many they are.
        perfect: mean KL of the true odds of a vote, nats; None without rows.
        tier_unknown: mean KL of a prediction that knows what a row shows but not who voted,
            see ``TrueOdds.tier_unknown``; None without rows. On a cumulative line it knows
            how often each tier judges that line's rows, which an objective averages; on a
            tier's line how often each judges any row.
        class_mean: mean KL of the mean target of all rows, nats; None without rows.
    """

    name: str
    n_rows: int
    perfect: float | None
    tier_unknown: float | None
    class_mean: float | None


@dataclass(frozen=True)
class FloorReport:
    """What a model can reach on a simulated folder.

    Attributes:
        folder: the simulated folder.
        table: the file in it whose rows were scored.
        unit: the row unit scored.
        cumulative: all rows, rows of at least 4 and of at least 10 votes.
        tiers: rows by disjoint tier of total votes.
        row_ids: the rows that were scored.
        total_votes: their votes.
    """

    folder: str
    table: str
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
            f"KL that remains on the drawn votes of {self.table} (nats)",
            f"{'rows':<8}{'number':>8}{'perfect model':>16}{'tier unknown':>15}{'class means':>14}",
        ]
        for title, group in (("cumulative", self.cumulative), ("by tier", self.tiers)):
            lines.append(f"-- {title}")
            lines += [
                f"{line.name:<8}{line.n_rows:>8}{_number(line.perfect):>16}"
                f"{_number(line.tier_unknown):>15}{_number(line.class_mean):>14}"
                for line in group
            ]
        return "\n".join(lines)

    def closed(
        self, scores: Mapping[str, float | None], floor: Floor = "perfect"
    ) -> dict[str, float | None]:
        """How much of the way from the class means to a floor scores have gone.

        Args:
            scores: ``kl_all``, ``kl_4`` and ``kl_10`` in nats, on these rows.
            floor: whose.

        Returns:
            Shares by the same names: 0 at the class means, 1 at the floor; None without a
            score or rows, or where the class means are no farther than the floor.
        """
        shares: dict[str, float | None] = {}
        for name, line in zip(OBJECTIVES, self.cumulative, strict=True):
            shares[name] = None
            score, lowest, start = scores.get(name), getattr(line, floor), line.class_mean
            if score is not None and start is not None and start > lowest:
                shares[name] = (start - score) / (start - lowest)
        return shares

    def distance_text(self, scores: Mapping[str, Mapping[str, float | None]]) -> str:
        """A table of at most 80 columns: how far named scores have gone, by rows."""
        width = max(len(name) for name in scores)
        heads = "".join(f"{line.name:>9}" for line in self.cumulative)
        lines = ["share of the way from the class means, simulated data"]
        for floor, title in FLOORS.items():
            lines += [f"-- to {title}", f"{'':<{width}}{heads}"]
            for name, values in scores.items():
                shares = self.closed(values, floor).values()
                lines.append(
                    f"{name:<{width}}" + "".join(f"{_share(share):>9}" for share in shares)
                )
        return "\n".join(lines)

    def distance_json(self, scores: Mapping[str, Mapping[str, float | None]]) -> str:
        """The same as a JSON object: floor, name, rows."""
        return json.dumps(
            {
                floor: {name: self.closed(values, floor) for name, values in scores.items()}
                for floor in FLOORS
            }
        )

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
                fix="Give the folder that the study was trained on; a study that dropped rows "
                "(data.unusable) has no floor.",
            )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def floor(
    folder: str | os.PathLike[str],
    unit: Unit = "eeg_votes",
    window: Window = "middle",
    row_ids: Sequence[str] | None = None,
) -> FloorReport:
    """Score the truth, and the class means, against the votes of a simulated folder.

    A perfect model predicts the true odds of a vote for the row's own experts. One to which
    the tier of the votes is unknown, as it is on new recordings, predicts the odds of all
    tiers, mixed as often as they judge such rows: on a cumulative line among that line's
    rows, because whoever trains for an objective knows which rows it averages; on a tier's
    line among all rows.

    Args:
        folder: a folder written by ``simulate_folder``: of the rows of its ``train.csv``,
            or of ``labels.csv`` where it holds labels only.
        unit: how label rows become rows, see ``make_rows``.
        window: see ``make_rows``; it does not change the result.
        row_ids: the rows to score, in this order; all if absent. What class means and the
            tiers' shares are, these rows alone tell.

    Raises:
        DataError: the folder holds no truth, or one that does not fit its labels, or not
            all of the rows.
    """
    folder = Path(folder)
    truth = read_truth(folder)
    only_labels = not (folder / LABEL_FILE).exists() and (folder / LABEL_TABLE_FILE).is_file()
    table = LABEL_TABLE_FILE if only_labels else LABEL_FILE
    labels = read_labels(folder, table)
    rows = make_rows(labels, unit, window)
    if row_ids is not None:
        rows = _chosen(rows, row_ids, folder)
    odds = true_odds(labels, rows, truth, unit, where=folder / TRUTH_FILE)
    targets = rows[list(TARGET_COLUMNS)].to_numpy(np.float64)
    means = np.broadcast_to(targets.mean(axis=0), targets.shape)
    votes = rows["total_votes"].to_numpy()
    perfect, class_mean = (kl_rows(targets, p) for p in (odds.own, means))
    usual = kl_rows(targets, odds.tier_unknown())

    def at_least(name: str, low: int) -> FloorLine:
        counted = votes >= low
        mixed = kl_rows(targets, odds.tier_unknown(counted)) if counted.any() else usual
        return _line(name, counted, (perfect, mixed, class_mean))

    def of_tier(name: str, low: int, high: int | None) -> FloorLine:
        chosen = (votes >= low) & (votes <= (np.inf if high is None else high))
        return _line(name, chosen, (perfect, usual, class_mean))

    return FloorReport(
        str(folder),
        table,
        unit,
        tuple(at_least(name, low) for name, low in (("all", 1), (">=4", 4), (">=10", 10))),
        tuple(of_tier(name, low, high) for name, low, high in VOTE_TIERS),
        tuple(rows["row_id"]),
        tuple(votes.tolist()),
    )


def _chosen(rows: pd.DataFrame, row_ids: Sequence[str], folder: Path) -> pd.DataFrame:
    """Some rows, in the order asked for."""
    position = pd.Index(rows["row_id"]).get_indexer(pd.Index(row_ids))
    if (position < 0).any() or not len(position):
        unknown = row_ids[int(np.argmin(position))] if len(position) else "none"
        raise DataError(
            "a floor needs rows of the simulated folder", got=f"{unknown}", where=folder
        )
    chosen: pd.DataFrame = rows.iloc[position].reset_index(drop=True)
    return chosen


def _line(
    name: str, chosen: NDArray[np.bool_], scores: tuple[NDArray[np.float64], ...]
) -> FloorLine:
    if not chosen.any():
        return FloorLine(name, 0, None, None, None)
    perfect, unknown, means = (float(score[chosen].mean()) for score in scores)
    return FloorLine(name, int(chosen.sum()), perfect, unknown, means)
