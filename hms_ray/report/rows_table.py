"""The rows of a study beside its models' predictions: loss, disagreement, sorting, details."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.blend.result_files import NESTED_FILE
from hms_ray.competition.rows import ROW_COLUMNS
from hms_ray.competition.schema import CLASSES, TARGET_COLUMNS, VOTE_COLUMNS, VOTE_TIERS
from hms_ray.errors import HmsRayError, PredictionError, StudyError
from hms_ray.evaluate.metric import Array, kl_rows
from hms_ray.evaluate.oof import probabilities_of, read_oof
from hms_ray.storage.folder_names import BLEND
from hms_ray.study.folder import StudyFolder
from hms_ray.study.trial import StoredTrial
from hms_ray.text import closest, shortened_list

MAX_MODELS: Final = 8
"""Most trials whose shares are shown, best first."""
PAGE_ROWS: Final = 50

_NEEDED: Final = (*ROW_COLUMNS, "fold")

Sort = Literal["loss", "class", "votes", "disagreement", "row"]
ALL: Final = "all"
VOTES: Final = {ALL: (0, None)} | {name: (low, high) for name, low, high in VOTE_TIERS}
"""Name of a filter by total votes -> smallest and largest number (None: no limit)."""


@dataclass(frozen=True, eq=False)
class RowModel:
    """One model's predictions of a study's rows.

    Attributes:
        name: such as ``trial 0003``.
        shares: (n, 6) float64 probabilities, in the order of the rows.
        loss: (n,) KL of each row, in nats.
    """

    name: str
    shares: Array
    loss: Array


@dataclass(frozen=True)
class RowQuery:
    """Which rows a list shows, and in which order.

    Attributes:
        sort: what the list is sorted by; rows without it are in the study's order.
        descending: largest first.
        of_class: class that has most votes, or ``all``.
        votes: a key of ``VOTES``.
        page: number of a page of ``PAGE_ROWS`` rows, from 0.
        row: id of a row whose page is wanted instead, if the filters let it pass.
    """

    sort: Sort = "loss"
    descending: bool = True
    of_class: str = ALL
    votes: str = ALL
    page: int = 0
    row: str | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("sort", self.sort, get_args(Sort)),
            ("class", self.of_class, (ALL, *CLASSES)),
            ("votes", self.votes, tuple(VOTES)),
        ):
            if value not in known:
                raise StudyError(
                    f"{name} must be one of {', '.join(known)}",
                    got=value,
                    fix=f"Use {name}={known[0]}.",
                )


def jensen_shannon(shares: Array) -> Array:
    """Disagreement of models: the Jensen-Shannon divergence of their predictions.

    It is the entropy of the mean prediction minus the mean entropy of the predictions, in
    nats: 0 if all models predict the same shares, at most ln(models) and ln(6).
    (Lin, Divergence measures based on the Shannon entropy, 1991.)

    Args:
        shares: (models, n, 6) float64.

    Returns:
        (n,) float64.
    """
    apart: Array = _entropy(shares.mean(axis=0)) - _entropy(shares).mean(axis=0)
    return np.maximum(apart, 0.0)


def _entropy(shares: Array) -> Array:
    found: Array = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=-1)
    return found


class RowTable:
    """The training rows of a study, with the predictions of its best trials.

    Args:
        folder: the study.
        trial: number of the trial whose loss is shown. Default: the best one with
            predictions.

    Attributes:
        rows: (n rows) the study's rows, see ``StudyFolder.rows``.
        models: the shown trial, then other finished trials, best first, at most
            ``MAX_MODELS``, and the study's blend, nested, if it has one. Empty if no trial has
            finished.
        classes: (n,) number of the class with most votes; of equals the first.
        disagreement: (n,) ``jensen_shannon`` of the trials; None with fewer than two.
        notes: what is missing, one sentence each.

    Raises:
        StudyError: if the rows cannot be read; or ``trial`` does not exist, did not finish or
            has no predictions.
    """

    def __init__(self, folder: StudyFolder, trial: int | None = None) -> None:
        self.study = folder.name
        self.rows = folder.rows()
        missing = [name for name in _NEEDED if name not in self.rows]
        if missing:
            raise StudyError(
                "rows.parquet must have the rows' votes and windows",
                got=f"no {shortened_list(missing)}",
                where=folder.path,
                fix="Run the study under another name: its folds stay in the fold store.",
            )
        self._targets = self.rows[list(TARGET_COLUMNS)].to_numpy(np.float64)
        self._ids = pd.Index(self.rows["row_id"].astype(str))
        self.classes = self._targets.argmax(axis=1)
        self._votes = self.rows["total_votes"].to_numpy(np.int64)
        self.notes: list[str] = []
        trials = self._trials(folder, trial)
        self.disagreement: Array | None = None
        if len(trials) > 1:
            self.disagreement = jensen_shannon(np.stack([model.shares for model in trials]))
        self.models = [*trials, *self._blend(folder)]

    def _trials(self, folder: StudyFolder, wanted: int | None) -> list[RowModel]:
        if wanted is not None:
            # Its own errors are not notes: the user named it.
            first = folder.finished_trial(wanted)
            found = [self._model(first, first.oof(self.rows))]
        else:
            found = []
        finished = folder.finished_trials()
        for trial in finished:
            if trial.number == wanted or len(found) == MAX_MODELS:
                continue
            try:
                found.append(self._model(trial, trial.oof(self.rows)))
            except HmsRayError as error:
                self.notes.append(f"Trial {trial.number:04d} is not shown: {error}")
        if not found:
            self.notes.append("No trial has finished: there are no losses and no predicted shares.")
        elif len(finished) > MAX_MODELS:
            self.notes.append(f"Shown are {MAX_MODELS} of {len(finished)} finished trials.")
        return found

    def _model(self, trial: StoredTrial, oof: pd.DataFrame) -> RowModel:
        return self._scored(f"trial {trial.number:04d}", oof)

    def _scored(self, name: str, oof: pd.DataFrame) -> RowModel:
        shares = probabilities_of(oof)
        return RowModel(name, shares, kl_rows(self._targets, shares))

    def _blend(self, folder: StudyFolder) -> list[RowModel]:
        file = folder.path / BLEND / NESTED_FILE
        if not file.is_file():
            return []
        try:
            return [self._scored("blend, nested", read_oof(file, self.rows))]
        except PredictionError as error:
            self.notes.append(f"The blend is not shown: {error}")
            return []

    def page(self, query: RowQuery) -> dict[str, Any]:
        """One page of the list as plain data: rows, their number, the page and its number."""
        order = self.order(query)
        page = query.page
        if query.row is not None and query.row in self._ids:
            place = np.flatnonzero(order == self.position(query.row))
            page = int(place[0]) // PAGE_ROWS if len(place) else page
        n_pages = max(1, -(-len(order) // PAGE_ROWS))
        page = min(max(page, 0), n_pages - 1)
        shown = order[page * PAGE_ROWS : (page + 1) * PAGE_ROWS]
        return {
            "total": len(order),
            "page": page,
            "pages": n_pages,
            "first": page * PAGE_ROWS + 1 if len(order) else 0,
            "rows": [self.summary(int(position)) for position in shown],
        }

    def order(self, query: RowQuery) -> NDArray[np.intp]:
        """Positions of the rows that the filters let pass, sorted; equals in the study's order."""
        low, high = VOTES[query.votes]
        kept = (self._votes >= low) & (self._votes <= (np.inf if high is None else high))
        if query.of_class != ALL:
            kept &= self.classes == CLASSES.index(query.of_class)
        places = np.flatnonzero(kept)
        keys: dict[str, NDArray[Any] | None] = {
            "loss": self.models[0].loss if self.models else None,
            "class": self.classes,
            "votes": self._votes,
            "disagreement": self.disagreement,
            "row": np.arange(len(self.rows)),
        }
        key = keys[query.sort]
        if key is None:
            return places
        values = key[places]
        return places[np.argsort(-values if query.descending else values, kind="stable")]

    def summary(self, position: int) -> dict[str, Any]:
        """A row of the list as plain data."""
        loss = float(self.models[0].loss[position]) if self.models else None
        apart = self.disagreement
        return {
            "id": str(self._ids[position]),
            "class": CLASSES[self.classes[position]],
            "votes": int(self._votes[position]),
            "loss": loss,
            "disagreement": None if apart is None else float(apart[position]),
        }

    def position(self, row_id: str) -> int:
        """Position of a row.

        Raises:
            StudyError: if the study has no such row; names the nearest.
        """
        if row_id not in self._ids:
            same = [one for one in self._ids if one.split("-")[0] == row_id.split("-")[0]]
            raise StudyError(
                "the row must be one of the study's",
                got=f"{row_id}{closest(row_id, same)}",
                where=f"study {self.study}",
                fix="Choose a row of the list; its ids are in rows.parquet.",
            )
        return int(np.flatnonzero(self._ids == row_id)[0])

    def details(self, row_id: str) -> dict[str, Any]:
        """One row as plain data: ids, votes by class, shares of the experts and of the models.

        Raises:
            StudyError: as ``position``.
        """
        position = self.position(row_id)
        row = self.rows.iloc[position]
        same_eeg = np.flatnonzero(self.rows["eeg_id"].to_numpy() == row["eeg_id"])
        models = [
            {
                "name": model.name,
                "loss": float(model.loss[position]),
                "shares": model.shares[position].tolist(),
            }
            for model in self.models
        ]
        return {
            **self.summary(position),
            "eeg": int(row["eeg_id"]),
            "patient": int(row["patient_id"]),
            "fold": int(row["fold"]),
            "vote_counts": [int(row[name]) for name in VOTE_COLUMNS],
            "truth": self._targets[position].tolist(),
            "models": models,
            "same_eeg": [self.summary(int(other)) for other in same_eeg],
        }
