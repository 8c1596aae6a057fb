"""Plotly figures of the trials of a study: progress, curves, values; see ``figures``."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from hms_ray.display.leaderboard import short_names
from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.report.figure_style import (
    COLOURS,
    DASHES,
    MARKERS,
    QUIET,
    label,
    new_figure,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


_STATE_MARKERS: Final = {"complete": "circle", "pruned": "triangle-down-open"}


def progress(frame: pd.DataFrame, objective: str, by: str = "trial") -> Figure:
    """Scores of the trials and the best so far.

    Args:
        frame: of ``frames.progress``.
        objective: ``kl_all``, ``kl_4`` or ``kl_10``.
        by: ``trial`` or ``hours``.
    """
    titles = {"trial": "trial", "hours": "hours of training, summed over folds"}
    figure = new_figure(
        xaxis={"title": {"text": titles[by]}}, yaxis={"title": {"text": SCORE_NAMES[objective]}}
    )
    done = frame[frame["score"].notna()]
    pruned = frame[frame["estimate"].notna() & frame["score"].isna()]
    for name, part, column in (
        ("complete", done, "score"),
        ("pruned (estimate)", pruned, "estimate"),
    ):
        if len(part):
            figure.add_scatter(
                x=part[by],
                y=part[column].round(5),
                mode="markers",
                name=name,
                text=[f"trial {number:04d}" for number in part["trial"]],
                hovertemplate="%{text}: %{y:.4f}<extra></extra>",
                marker={
                    "symbol": _STATE_MARKERS[name.split(" ")[0]],
                    "color": QUIET,
                    "size": 7,
                },
            )
    if len(done):
        figure.add_scatter(
            x=frame[by],
            y=frame["best"].round(5),
            mode="lines",
            name="best so far",
            line={"shape": "hv", "width": 3, "color": COLOURS[0]},
            hovertemplate="best so far: %{y:.4f}<extra></extra>",
        )
        # Trials far above all others would leave the rest no room.
        scores = done["score"]
        low, high = float(scores.min()), float(scores.quantile(0.95))
        room = max(0.08 * (high - low), 1e-4)
        figure.update_yaxes(range=[low - room, high + room])
    return figure


def mean_curves(frame: pd.DataFrame, objective: str) -> pd.DataFrame:
    """Mean over the folds at each evaluation that all folds of a trial have.

    Folds of few rows have fewer evaluations; a mean of the others would jump.

    Returns:
        ``trial``, ``epoch`` and the objective, in this order of rows.
    """
    found = frame.groupby(["trial", "epoch"])[objective].agg(["mean", "size"]).reset_index()
    n_folds = frame.groupby("trial")["fold"].nunique()
    found = found[found["size"] == found["trial"].map(n_folds)]
    return found.rename(columns={"mean": objective})[["trial", "epoch", objective]]


def all_curves(frame: pd.DataFrame, objective: str, best: Sequence[int]) -> Figure:
    """Mean over folds of every trial; the best ones stand out.

    Args:
        frame: of ``frames.curves``.
        objective: score to draw.
        best: numbers of the trials that stand out, best first; at most six.
    """
    figure = new_figure(
        xaxis={"title": {"text": "epoch, over all stages"}},
        yaxis={"title": {"text": f"{SCORE_NAMES[objective]}, mean over folds"}},
    )
    mean = mean_curves(frame, objective)
    x: list[float | None] = []
    y: list[float | None] = []
    for number, part in mean.groupby("trial"):
        if number not in best:
            x += [*part["epoch"].tolist(), None]
            y += [*part[objective].round(4).tolist(), None]
    if x:
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name="other trials",
            line={"color": QUIET, "width": 1},
            opacity=0.35,
            hoverinfo="skip",
        )
    for place, number in enumerate(best[: len(COLOURS)]):
        part = mean[mean["trial"] == number]
        figure.add_scatter(
            x=part["epoch"],
            y=part[objective].round(5),
            mode="lines+markers",
            name=f"trial {number:04d}",
            line={"color": COLOURS[place], "dash": DASHES[place], "width": 2.5},
            marker={"symbol": MARKERS[place], "size": 6},
        )
    values = mean[objective].dropna()
    if len(values):
        low, high = float(values.min()), float(values.quantile(0.98))
        figure.update_yaxes(range=[low - 0.05 * (high - low), high + 0.05 * (high - low)])
    return figure


def fold_curves(part: pd.DataFrame, objective: str) -> dict[str, Any]:
    """Curves of one trial by fold, with stage marks, as plain data of a Plotly figure.

    A page draws many of them, for which figure objects take too long.

    Args:
        part: rows of one trial of ``frames.curves``.
        objective: score to draw.
    """
    traces: list[dict[str, Any]] = []
    for place, (fold, lines) in enumerate(part.groupby("fold")):
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"fold {fold}",
                "x": lines["epoch"].tolist(),
                "y": _plain(lines[objective].round(4)),
                "line": {
                    "color": COLOURS[place % len(COLOURS)],
                    "dash": DASHES[place % len(DASHES)],
                },
            }
        )
    mean = mean_curves(part, objective)
    traces.append(
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "mean over folds",
            "x": mean["epoch"].tolist(),
            "y": _plain(mean[objective].round(4)),
            "line": {"width": 4, "color": QUIET},
            "marker": {"size": 6},
        }
    )
    shapes, notes = _stage_marks(part)
    return {"data": traces, "layout": {"shapes": shapes, "annotations": notes}}


def _stage_marks(part: pd.DataFrame) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A line at the start of each later stage, and the names of all."""
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    if part.empty:
        return shapes, notes
    one = part[part["fold"] == part["fold"].iloc[0]]
    start, known = 0.0, one["stage"].iloc[0]
    starts = [(start, known)]
    for stage, before in zip(one["stage"].iloc[1:], one["epoch"].iloc[:-1], strict=True):
        if stage != known:
            starts.append((float(before), stage))
            known = stage
    for start, stage in starts:
        if start:
            line = {"color": QUIET, "dash": "dot", "width": 1.5}
            ends = {"x0": start, "x1": start, "y0": 0, "y1": 1, "yref": "paper"}
            shapes.append({"type": "line", **ends, "line": line})
        notes.append(
            {
                "x": start,
                "y": 1,
                "yref": "paper",
                "text": f"stage {label(stage)}",
                "showarrow": False,
                "xanchor": "left",
                "yanchor": "top",
                "xshift": 4,
            }
        )
    return shapes, notes


def _plain(values: pd.Series[Any]) -> list[float | None]:
    return [None if pd.isna(value) else float(value) for value in values]


def curves(frame: pd.DataFrame, objective: str, trial: int | str) -> Figure:
    """Curves of one trial by fold, with stage marks; see ``fold_curves``."""
    figure = new_figure(
        xaxis={"title": {"text": "epoch, over all stages"}},
        yaxis={"title": {"text": SCORE_NAMES[objective]}},
    )
    made = fold_curves(frame[frame["trial"] == trial], objective)
    figure.add_traces(made["data"])
    figure.update_layout(**made["layout"])
    return figure


def parallel(frame: pd.DataFrame, objective: str, log: Collection[str] = ()) -> Figure:
    """Parallel coordinates of the finished trials; dragging along an axis selects trials.

    Optuna's own figure of this name has no selection and one trace per trial.

    Args:
        frame: of ``frames.trials``.
        objective: score, the first axis.
        log: paths of parameters on a logarithmic scale.
    """
    figure = new_figure(460)
    done = frame[frame["rank"].notna()]
    paths = [path for path in frame.columns if "." in path and done[path].notna().any()]
    names = dict(zip(paths, short_names(paths), strict=True))
    score = {"label": SCORE_NAMES[objective], "values": done[objective].round(5)}
    axes = [{**score, "tickformat": ".4f"}]
    axes += [_axis(done[path], names[path], log=path in log) for path in paths]
    # Trials far above all others would leave the rest one colour.
    scores = done[objective]
    figure.add_parcoords(
        dimensions=axes,
        line={
            "color": scores,
            # Both ends are visible on light and on dark ground.
            "colorscale": [[0.0, "#d55e00"], [1.0, "#56b4e9"]],
            "cmin": float(scores.min()),
            "cmax": float(scores.quantile(0.9)),
            "showscale": True,
            "colorbar": {"title": {"text": SCORE_NAMES[objective]}},
        },
        unselected={"line": {"color": QUIET, "opacity": 0.08}},
    )
    figure.update_layout(margin={"l": 90, "r": 60, "t": 70, "b": 40})
    return figure


def _axis(values: pd.Series[Any], name: str, *, log: bool) -> dict[str, Any]:
    """An axis of parallel coordinates; a trial without a value is at its lower end."""
    known = values.dropna()
    if not pd.api.types.is_numeric_dtype(known.infer_objects()) or known.dtype == bool:
        labels = sorted(map(str, known.unique()))
        labels = (["-"] if len(known) < len(values) else []) + labels
        shown = values.map(lambda value: "-" if pd.isna(value) else str(value))
        ticks = list(range(len(labels)))
        return {
            "label": name,
            "values": shown.map(labels.index),
            "range": [0, max(ticks)],
            "tickvals": ticks,
            "ticktext": labels,
        }
    numbers = pd.to_numeric(values)
    if not log:
        shown = numbers.fillna(float(known.min()))
        return {"label": name, "values": shown, "tickformat": ".3~g"}
    logs = np.log10(numbers)
    ticks = list(range(math.floor(logs.min()), math.ceil(logs.max()) + 1))
    return {
        "label": name,
        "values": logs.fillna(ticks[0]),
        "range": [ticks[0], ticks[-1]],
        "tickvals": ticks,
        "ticktext": [f"{10.0**tick:g}" for tick in ticks],
    }
