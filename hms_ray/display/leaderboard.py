"""A study's leaderboard: as a data frame, as text and as CSV."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from hms_ray.config.space import Objective
from hms_ray.display.cells import (
    OPTIMISTIC_LEGEND,
    RECALIBRATED,
    RECALIBRATED_LEGEND,
    TIE_LEGEND,
    score_text,
    signed,
)
from hms_ray.display.tables import Column, Table, to_text
from hms_ray.evaluate.metric import OBJECTIVES, RECALIBRATED_NAMES, SCORE_NAMES, named_scores
from hms_ray.storage.atomic import whole_file
from hms_ray.text import counted, shortened_list

COMPLETE: Final = "complete"
_FIXED: Final = (
    *("rank", "trial", "state", "optimistic", "tied", "gain", "reference"),
    *("n_folds", "reused_folds", "fold_minutes", "saved_minutes", "estimate", *OBJECTIVES),
    *RECALIBRATED_NAMES.values(),
)


def leaderboard(
    records: Iterable[Mapping[str, Any]], objective: Objective = "kl_10"
) -> pd.DataFrame:
    """Trials from best to worst.

    Args:
        records: one mapping per trial with ``trial`` (text), ``state``, ``kl_all``,
            ``kl_4``, ``kl_10`` (None without rows), ``optimistic``, ``values``
            (dotted path -> value or label), ``fold_minutes``, ``reused_folds``
            (their number), ``n_folds``, and, if known, ``tied`` (whether the trial ties
            with the best one) and ``saved_minutes`` (minutes of ``fold_minutes`` that
            stages reused from the fold store saved), ``estimate`` (of a pruned trial: the
            objective that it would probably have reached), ``kl_all_recalibrated`` and the
            same of the others (see ``recalibrated_scores``), ``gain`` (over a reference blend, in
            nats) and ``reference`` (its number, as text).
        objective: the score that orders complete trials, if they have no gains, which order
            them otherwise; others follow in their own order.

    Returns:
        One row per trial: ``rank`` (equal scores share one; missing if incomplete),
        ``trial``, ``state``, ``optimistic``, ``tied`` if known, the three scores with
        the objective first and, if known, the same recalibrated after each, ``n_folds``,
        ``reused_folds``, ``fold_minutes``, ``estimate`` and ``saved_minutes`` if known, then
        every value under its dotted path.
    """
    trials = list(records)
    scores = [objective, *(name for name in OBJECTIVES if name != objective)]
    if any(name in trial for trial in trials for name in RECALIBRATED_NAMES.values()):
        scores = [name for of in scores for name in (of, RECALIBRATED_NAMES[of])]
    paths = dict.fromkeys(path for trial in trials for path in trial["values"])
    ties = ["tied"] if any("tied" in trial for trial in trials) else []
    gains = ["gain", "reference"] if any("gain" in trial for trial in trials) else []
    names = ["trial", "state", "optimistic", *ties, *gains, *scores]
    names += ["n_folds", "reused_folds", "fold_minutes"]
    names += ["estimate"] if any(trial.get("estimate") is not None for trial in trials) else []
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
    order = frame[objective]
    if gains:
        frame["gain"] = frame["gain"].astype("float64")
        order = -frame["gain"]
    frame.insert(0, "rank", order.where(ranked).rank(method="min").astype("Int64"))
    return frame.sort_values("rank", kind="stable", na_position="last").reset_index(drop=True)


def write_csv(frame: pd.DataFrame, path: str | Path) -> None:
    """Writes a leaderboard with every column, whole or not at all."""
    # Made from the stored trials, again at the end of each.
    with whole_file(path, fsync=False) as draft:
        frame.to_csv(draft, index=False, float_format="%.10g")


def render(frame: pd.DataFrame, choice: str = "", width: int | None = None) -> str:
    """The best trial and its ties in sentences, then the leaderboard as a table.

    Values that all trials share have no column.

    Args:
        frame: from ``leaderboard``.
        choice: sentences on the choice of the best trial.
        width: characters per line; default: as ``to_text``.
    """
    if frame.empty:
        return "no trials yet"
    states = _states(frame)
    notes = [TIE_LEGEND] if "tie" in states else []
    if has_recalibrated(frame):
        notes.append(RECALIBRATED_LEGEND)
    if any("optimistic" in state for state in states):
        notes.append(OPTIMISTIC_LEGEND.removeprefix("* "))
    table = Table("", tuple(columns_of(frame)), tuple(notes))
    return to_text(_verdict(frame), choice, table, width=width)


def pruned_text(n_trials: int, n_folds: int, minutes: float) -> str:
    """Pruned trials, the folds that they did not train and their hours; empty without any."""
    if not n_trials:
        return ""
    not_trained = f"{counted(n_folds, 'fold')} not trained"
    hours = f"about {minutes / 60:.2g} hours saved"
    return f"{counted(n_trials, 'trial')} pruned: {not_trained}, {hours}"


def _verdict(frame: pd.DataFrame) -> str:
    finished = frame[frame["rank"].notna()]
    if finished.empty:
        return "No trial has finished yet."
    objective, best = _objective(frame), finished.iloc[0]
    if "gain" in frame:
        lowest = finished.sort_values(objective, kind="stable").iloc[0]
        return (
            f"Largest gain: trial {best['trial']}, {signed(best['gain'])}, "
            f"of {counted(len(finished), 'finished trial')}. Best trial alone: "
            f"{lowest['trial']}, {named_scores({objective: lowest[objective]})}."
        )
    text = (
        f"Best trial: {best['trial']}, {named_scores({objective: best[objective]})}, "
        f"of {counted(len(finished), 'finished trial')}."
    )
    if "tied" not in frame or len(finished) == 1:
        return text
    ties = finished["trial"][finished["tied"].eq(True)].tolist()
    if ties:
        return f"{text} Ties with it: {shortened_list(ties)}."
    return f"{text} It is better than every other one."


def has_recalibrated(frame: pd.DataFrame) -> bool:
    """Whether a leaderboard has scores after recalibration."""
    return any(name in frame and frame[name].notna().any() for name in RECALIBRATED_NAMES.values())


def _objective(frame: pd.DataFrame) -> str:
    return next(name for name in frame.columns if name in OBJECTIVES)


def columns_of(frame: pd.DataFrame) -> list[Column]:
    """The columns of a leaderboard as texts; values that all trials share have none."""
    objective, states = _objective(frame), _states(frame)
    scores = {
        name: [score_text(value) for value in frame[name]]
        for name in frame.columns
        if name in OBJECTIVES
    }
    columns = [
        Column("#", ["-" if pd.isna(rank) else str(rank) for rank in frame["rank"]]),
        Column("trial", [str(trial) for trial in frame["trial"]], right=False),
        *([Column("gain", _gains(frame["gain"]))] if "gain" in frame else []),
        Column(SCORE_NAMES[objective], scores.pop(objective)),
        *_recalibrated(frame, objective, spare=False),
    ]
    if any(states):
        columns.append(Column("state", states, right=False))
    for name, cells in scores.items():
        columns.append(Column(SCORE_NAMES[name], cells, optional=True))
        columns += _recalibrated(frame, name, spare=True)
    varying = [path for path in frame.columns if path not in _FIXED and _varies(frame[path])]
    for path, title in zip(varying, short_names(varying), strict=True):
        numeric = pd.api.types.is_numeric_dtype(frame[path])
        cells = [_shown(value) for value in frame[path]]
        columns.append(Column(title, cells, right=numeric, optional=True))
    folds = [
        f"{_count(total)}" + (f" ({_count(reused)} reused)" if reused else "")
        for total, reused in zip(frame["n_folds"], frame["reused_folds"], strict=True)
    ]
    saved = frame.get("saved_minutes", pd.Series(0.0, index=frame.index))
    minutes = [_minutes(*pair) for pair in zip(frame["fold_minutes"], saved, strict=True)]
    columns.append(Column("folds", folds, right=False, optional=True))
    columns.append(Column("minutes", minutes, right=False, optional=True))
    return columns


def _recalibrated(frame: pd.DataFrame, name: str, *, spare: bool) -> list[Column]:
    """A score after recalibration; none if a record has it not."""
    if RECALIBRATED_NAMES[name] not in frame:
        return []
    cells = [score_text(value) for value in frame[RECALIBRATED_NAMES[name]]]
    title = f"{SCORE_NAMES[name]} {RECALIBRATED}"
    return [Column(title, cells, optional=True, spare=spare)]


def _gains(values: pd.Series[Any]) -> list[str]:
    return ["-" if pd.isna(value) else signed(value) for value in values]


def _minutes(total: float, saved: float) -> str:
    if pd.isna(total):
        return "-"
    return f"{total:.1f}" + (f" ({saved:.1f} saved)" if saved >= 0.05 else "")


def _states(frame: pd.DataFrame) -> list[str]:
    """In words: the best trial, a tie with it, optimistic; what a trial that failed is."""
    states = []
    for position, row in enumerate(frame.to_dict("records")):
        words = []
        if str(row["state"]).lower() != COMPLETE:
            words.append(_state_text(row))
        elif row.get("tied") is True:
            words.append("tie")
        elif position == 0:
            words.append("best")
        if row["optimistic"] is True:
            words.append("optimistic")
        states.append(", ".join(words))
    return states


def _state_text(row: Mapping[Any, Any]) -> str:
    """The state of a trial without a score; of a pruned one with its estimate."""
    state = str(row["state"]).lower()
    if state != "pruned":
        return state
    estimate = row.get("estimate")
    return state if _is_missing(estimate) else f"{state}, estimate {score_text(estimate)}"


def short_names(paths: Sequence[str]) -> list[str]:
    """The last part of each dotted path, or as many parts as make it unique."""
    names = []
    for path in paths:
        parts = path.split(".")
        for n_parts in range(1, len(parts) + 1):
            name = ".".join(parts[-n_parts:])
            if sum(other == path or other.endswith("." + name) for other in paths) == 1:
                break
        names.append(name)
    return names


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
