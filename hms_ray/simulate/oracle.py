"""Oracle KL: the KL that a model which knows the simulator's truth has on the drawn votes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pandas as pd

from hms_ray.competition.read import LABEL_FILE, read_labels
from hms_ray.competition.rows import Unit, Window, make_rows
from hms_ray.competition.schema import TARGET_COLUMNS, VOTE_TIERS
from hms_ray.errors import DataError
from hms_ray.evaluate.metric import OBJECTIVES, SCORE_NAMES, kl_rows
from hms_ray.simulate.cohort import LABEL_TABLE_FILE, TRUTH_FILE
from hms_ray.simulate.truth import read_truth, true_odds

Oracle = Literal["oracle", "oracle_without_tier"]
ORACLES: Final[dict[Oracle, str]] = {
    "oracle": "oracle, which knows who voted",
    "oracle_without_tier": "oracle that does not know who voted",
}


@dataclass(frozen=True)
class OracleScores:
    """Mean KL on one group of rows, in nats; None without rows.

    Attributes:
        name: the rows: ``all``, ``>=4``, ``>=10`` or a disjoint tier of total votes.
        n_rows: number of rows.
        oracle: KL of the true odds of a vote.
        oracle_without_tier: KL of a prediction that knows what a row shows but not which
            tier of experts voted, see ``TrueOdds.without_tier``. In a cumulative group it
            knows how often each tier judges that group's rows, because an objective
            averages exactly these; in a tier, how often each tier judges any row.
        class_mean: KL of the mean target of all rows.
    """

    name: str
    n_rows: int
    oracle: float | None = None
    oracle_without_tier: float | None = None
    class_mean: float | None = None


@dataclass(frozen=True)
class OracleReport:
    """Oracle KL of a simulated folder.

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
    cumulative: tuple[OracleScores, ...]
    tiers: tuple[OracleScores, ...]
    row_ids: tuple[str, ...] = field(repr=False)
    total_votes: tuple[int, ...] = field(repr=False)

    def to_json(self) -> str:
        """The report as a JSON object with unrounded floats."""
        data = asdict(self)
        del data["row_ids"], data["total_votes"]
        return json.dumps(data, indent=2)

    def to_text(self) -> str:
        """The report as a text table."""
        heads = f"{'oracle KL':>12}{'voters unknown':>22}{'class means':>14}"
        lines = [
            f"Lowest KL that a model can reach on the votes of {self.table} (nats, simulated data)",
            f"{'votes':<10}{'rows':>8}{heads}",
        ]
        for prefix, group in (("", self.cumulative), ("tier ", self.tiers)):
            for line in group:
                values = (line.oracle, line.oracle_without_tier, line.class_mean)
                cells = ("-" if value is None else f"{value:.4f}" for value in values)
                oracle, without_tier, class_mean = cells
                lines.append(
                    f"{prefix + line.name:<10}{line.n_rows:>8}{oracle:>12}{without_tier:>22}"
                    f"{class_mean:>14}"
                )
        return "\n".join(lines)

    def share_closed(
        self, scores: Mapping[str, float | None], to: Oracle = "oracle"
    ) -> dict[str, float | None]:
        """Share of the distance from the class means to an oracle that scores have closed.

        Args:
            scores: ``kl_all``, ``kl_4`` and ``kl_10`` in nats, on these rows.
            to: the oracle.

        Returns:
            Shares by the same names: 0 at the class means, 1 at the oracle; None if there is
            no score, there are no rows, or the class means are as good as the oracle.
        """
        shares: dict[str, float | None] = {}
        for name, line in zip(OBJECTIVES, self.cumulative, strict=True):
            shares[name] = None
            score, lowest, start = scores.get(name), getattr(line, to), line.class_mean
            if score is not None and start is not None and start > lowest:
                shares[name] = (start - score) / (start - lowest)
        return shares

    def study_text(self, scores: Mapping[str, Mapping[str, float | None]]) -> str:
        """A text table of ``share_closed``, one row per oracle and named scores."""
        width = max(map(len, scores)) + 2
        heads = "".join(f"{title:>9}" for title in SCORE_NAMES.values())
        lines = [
            "How much of the distance from the class means to the oracle is closed,",
            "simulated data: 0% is as good as the class means, 100% as good as the oracle",
            " " * width + heads,
        ]
        for to, title in ORACLES.items():
            lines.append(title)
            for name, values in scores.items():
                shares = self.share_closed(values, to).values()
                cells = ("-" if share is None else f"{share:.0%}" for share in shares)
                lines.append(f"  {name:<{width - 2}}" + "".join(f"{cell:>9}" for cell in cells))
        return "\n".join(lines)

    def study_json(self, scores: Mapping[str, Mapping[str, float | None]]) -> str:
        """``share_closed`` as a JSON object: oracle -> name of the scores -> score -> share."""
        return json.dumps(
            {
                to: {name: self.share_closed(values, to) for name, values in scores.items()}
                for to in ORACLES
            }
        )

    def require_rows(self, rows: pd.DataFrame) -> None:
        """Check that scores were computed on this folder's rows.

        Raises:
            DataError: if the rows or their votes differ.
        """
        if list(rows["row_id"]) != list(self.row_ids) or list(rows["total_votes"]) != list(
            self.total_votes
        ):
            raise DataError(
                "the study must have the rows of the simulated folder",
                got=f"{len(rows)} other rows",
                where=self.folder,
                fix="Give the folder that the study was trained on. A study that dropped rows "
                "(data.unusable: drop) has no oracle KL.",
            )


def oracle_report(
    folder: str | os.PathLike[str],
    unit: Unit = "eeg_votes",
    window: Window = "middle",
    row_ids: Sequence[str] | None = None,
) -> OracleReport:
    """Score the truth, and the class means, against the votes of a simulated folder.

    The oracle predicts the true odds of a vote for the row's own experts. The oracle without
    tier does not know which tier voted, as on new recordings; see ``OracleScores``.

    Args:
        folder: a folder written by ``simulate_folder``; the rows are those of its
            ``train.csv``, or of ``labels.csv`` if it holds only labels.
        unit: how label rows become rows, see ``make_rows``.
        window: see ``make_rows``; it does not change the result.
        row_ids: the rows to score, in this order; default: all. Class means and the tiers'
            shares are computed on these rows alone.

    Raises:
        DataError: if the folder has no truth, or one that does not fit its labels, or lacks
            one of the rows.
    """
    folder = Path(folder)
    truth = read_truth(folder)
    only_labels = not (folder / LABEL_FILE).exists() and (folder / LABEL_TABLE_FILE).is_file()
    table = LABEL_TABLE_FILE if only_labels else LABEL_FILE
    labels = read_labels(folder, table)
    rows = make_rows(labels, unit, window)
    if row_ids is not None:
        rows = _select(rows, row_ids, folder)
    odds = true_odds(labels, rows, truth, unit, where=folder / TRUTH_FILE)
    targets = rows[list(TARGET_COLUMNS)].to_numpy(np.float64)
    means = np.broadcast_to(targets.mean(axis=0), targets.shape)
    votes = rows["total_votes"].to_numpy()
    own, class_mean = (kl_rows(targets, p) for p in (odds.own, means))
    without_tier = kl_rows(targets, odds.without_tier())

    def scores(name: str, low: int, high: int | None, *, own_shares: bool) -> OracleScores:
        mask = (votes >= low) & (votes <= (np.inf if high is None else high))
        if not mask.any():
            return OracleScores(name, 0)
        mixed = kl_rows(targets, odds.without_tier(mask)) if own_shares else without_tier
        means = [float(kl[mask].mean()) for kl in (own, mixed, class_mean)]
        return OracleScores(name, int(mask.sum()), *means)

    cumulative = (("all", 1, None), (">=4", 4, None), (">=10", 10, None))
    return OracleReport(
        str(folder),
        table,
        unit,
        tuple(scores(*group, own_shares=True) for group in cumulative),
        tuple(scores(*tier, own_shares=False) for tier in VOTE_TIERS),
        tuple(rows["row_id"]),
        tuple(votes.tolist()),
    )


def _select(rows: pd.DataFrame, row_ids: Sequence[str], folder: Path) -> pd.DataFrame:
    """The rows of some ids, in the order of the ids."""
    position = pd.Index(rows["row_id"]).get_indexer(pd.Index(row_ids))
    if (position < 0).any() or not len(position):
        unknown = row_ids[int(np.argmin(position))] if len(position) else "none"
        raise DataError(
            "oracle KL needs rows of the simulated folder", got=f"{unknown}", where=folder
        )
    selected: pd.DataFrame = rows.iloc[position].reset_index(drop=True)
    return selected
