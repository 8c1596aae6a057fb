"""The leaderboard as a table, as text and as CSV; the blend's text beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pandas as pd

from hms_ray.config.space import Objective
from hms_ray.evaluate.metric import OBJECTIVES, SCORE_NAMES
from hms_ray.report.text_table import (
    OPTIMISTIC_LEGEND,
    TIED_LEGEND,
    WIDTH,
    Column,
    score,
    shortened,
    text_table,
    wrapped,
)
from hms_ray.storage.atomic import whole_file

__all__ = ["leaderboard", "render", "write_csv"]

COMPLETE: Final = "complete"
_FIXED: Final = (
    *("rank", "trial", "state", "optimistic", "tied"),
    *("n_folds", "reused_folds", "fold_minutes", "saved_minutes", *OBJECTIVES),
)
_LONGEST_CELL: Final = 20
_LONGEST_WORD, _SHORTEST_WORD = 12, 6
_LONGEST_CUT_CELL: Final = 12


def leaderboard(
    records: Iterable[Mapping[str, Any]], objective: Objective = "kl_10"
) -> pd.DataFrame:
    """Trials from best to worst.

    Args:
        records: one mapping a trial with ``trial`` (text), ``state``, ``kl_all``,
            ``kl_4``, ``kl_10`` (None without rows), ``optimistic``, ``values``
            (dotted path -> value or label), ``fold_minutes``, ``reused_folds``
            (their number), ``n_folds``, and, where they are known, ``tied`` (no better
            and no worse than the best trial) and ``saved_minutes`` (the part of
            ``fold_minutes`` that stages taken from the store did not cost again).
        objective: the score that orders complete trials; others come after them, in
            their own order.

    Returns:
        A row a trial: ``rank`` (equal scores share one; missing where incomplete),
        ``trial``, ``state``, ``optimistic``, ``tied`` where given, the three scores
        with the objective first, ``n_folds``, ``reused_folds``, ``fold_minutes``,
        ``saved_minutes`` where given, then every value under its dotted path.
    """
    trials = list(records)
    scores = [objective, *(name for name in OBJECTIVES if name != objective)]
    paths = dict.fromkeys(path for trial in trials for path in trial["values"])
    ties = ["tied"] if any("tied" in trial for trial in trials) else []
    names = ["trial", "state", "optimistic", *ties, *scores]
    names += ["n_folds", "reused_folds", "fold_minutes"]
    names += ["saved_minutes"] if any("saved_minutes" in trial for trial in trials) else []
    rows = [
        {
            **{name: trial.get(name) for name in names},
            **{path: _plain(trial["values"].get(path)) for path in paths},
        }
        for trial in trials
    ]
    frame = pd.DataFrame(rows, columns=[*names, *paths])
    frame[scores] = frame[scores].astype("float64")
    ranked = frame["state"].astype(str).str.lower().eq(COMPLETE) & frame[objective].notna()
    frame.insert(0, "rank", frame[objective].where(ranked).rank(method="min").astype("Int64"))
    return frame.sort_values("rank", kind="stable", na_position="last").reset_index(drop=True)


def write_csv(frame: pd.DataFrame, path: str | Path) -> None:
    """Writes a leaderboard with every column, whole or not at all."""
    with whole_file(path) as draft:
        frame.to_csv(draft, index=False, float_format="%.10g")


def render(frame: pd.DataFrame, width: int = WIDTH) -> str:
    """A leaderboard as text; values that all trials share are left out.

    A trial that is not complete shows its state in place of the objective. Where the
    width does not hold all columns, those of least worth (folds and minutes, then
    values from the right, then scores other than the objective) are named below the
    table instead.

    Args:
        frame: as of ``leaderboard``.
        width: characters a line.
    """
    if frame.empty:
        return "no trials yet"
    columns, hidden = _fitting(_leaderboard_columns(frame), width)
    notes = []
    if _any(frame, "optimistic"):
        notes.append(OPTIMISTIC_LEGEND)
    if _any(frame, "tied"):
        notes.append(TIED_LEGEND)
    if hidden:
        notes.append(f"not shown: {', '.join(hidden)}")
    lines = [shortened(line, width) for line in text_table(columns)]
    return "\n".join([*lines, *(line for note in notes for line in wrapped(note, width))])


def _leaderboard_columns(frame: pd.DataFrame) -> list[Column]:
    ranks = ["-" if pd.isna(rank) else str(rank) for rank in frame["rank"]]
    trials = [shortened(str(trial), _LONGEST_CELL) for trial in frame["trial"]]
    columns = [Column("#", ranks), Column("trial", trials, right=False)]
    objective, *others = [name for name in frame.columns if name in OBJECTIVES]
    columns.append(Column(SCORE_NAMES[objective], _objective_cells(frame, objective)))
    for number, name in enumerate(others):
        columns.append(
            Column(SCORE_NAMES[name], [score(v) for v in frame[name]], worth=100 - number)
        )
    varying = [path for path in frame.columns if path not in _FIXED and _varies(frame[path])]
    for number, (path, title) in enumerate(zip(varying, short_names(varying), strict=True)):
        cells = [shortened(_shown(value), _LONGEST_CELL) for value in frame[path]]
        numeric = pd.api.types.is_numeric_dtype(frame[path])
        columns.append(Column(title, cells, right=numeric, worth=50 - number))
    folds = [
        f"{_count(total)}" + (f" ({_count(reused)} reused)" if reused else "")
        for total, reused in zip(frame["n_folds"], frame["reused_folds"], strict=True)
    ]
    columns.append(Column("folds", folds, right=False, worth=-2))
    saved = frame.get("saved_minutes", pd.Series(0.0, index=frame.index))
    minutes = [_minutes(*pair) for pair in zip(frame["fold_minutes"], saved, strict=True)]
    noted = any(cell.endswith(")") for cell in minutes)
    columns.append(Column("minutes", minutes, right=not noted, worth=-1))
    return columns


def _minutes(total: float, saved: float) -> str:
    if pd.isna(total):
        return "-"
    return f"{total:.1f}" + (f" ({saved:.1f} saved)" if saved >= 0.05 else "")


def _objective_cells(frame: pd.DataFrame, objective: str) -> list[str]:
    """The score with its marks; the state instead, where a trial is not complete."""
    rows = frame.to_dict("records")
    marks = [_marks(row) for row in rows]
    longest = max(map(len, marks))
    return [
        score(row[objective]) + mark.ljust(longest)
        if str(row["state"]).lower() == COMPLETE
        else str(row["state"]).lower()
        for row, mark in zip(rows, marks, strict=True)
    ]


def _fitting(columns: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """The columns that a line holds, and the titles of those left out.

    First bookkeeping goes, then headings are hyphenated, then long texts cut, then
    columns dropped.
    """
    kept, hidden = _dropping(columns, width, below=0)
    for longest in range(_LONGEST_WORD, _SHORTEST_WORD - 1, -1):
        if _width(kept) > width:
            kept = [replace(column, longest_word=longest) for column in kept]
    if _width(kept) > width:
        kept = [
            replace(column, cells=[shortened(cell, _LONGEST_CUT_CELL) for cell in column.cells])
            for column in kept
        ]
    kept, more = _dropping(kept, width, below=math.inf)
    return kept, more + hidden


def _dropping(
    columns: Sequence[Column], width: int, below: float
) -> tuple[list[Column], list[str]]:
    """Drops columns worth less than a bound until the rest fits."""
    kept, hidden = list(columns), []
    while _width(kept) > width:
        optional = [
            (column.worth, number)
            for number, column in enumerate(kept)
            if column.worth is not None and column.worth < below
        ]
        if not optional:
            break
        hidden.append(kept.pop(min(optional)[1]).title)
    return kept, hidden[::-1]


def _width(columns: Sequence[Column]) -> int:
    return sum(column.width + 2 for column in columns) - 2


def short_names(paths: Sequence[str]) -> list[str]:
    """Each dotted path's last part, or as many parts as tell it from the others."""
    names = []
    for path in paths:
        parts = path.split(".")
        for n_parts in range(1, len(parts) + 1):
            name = ".".join(parts[-n_parts:])
            if sum(other == path or other.endswith("." + name) for other in paths) == 1:
                break
        names.append(name)
    return names


def _marks(row: Mapping[Any, Any]) -> str:
    optimistic, tied = row["optimistic"], row.get("tied")
    return ("*" if optimistic is True else "") + ("=" if tied is True else "")


def _any(frame: pd.DataFrame, mark: str) -> bool:
    return mark in frame and any(value is True for value in frame[mark].tolist())


def _varies(values: pd.Series[Any]) -> bool:
    # Not as shown: three digits would hide that learning rates differ a little.
    return len({"-" if _is_missing(value) else str(value) for value in values}) > 1


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, tuple, dict)) else value


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _shown(value: Any) -> str:
    if _is_missing(value):
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


def _count(value: Any) -> str:
    return "-" if pd.isna(value) else str(int(value))
