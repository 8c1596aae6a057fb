"""Plotly figures of the frames of ``frames``: for the report, and for notebooks.

Lines and bars differ in dash, marker or pattern too, so that no figure needs colour. Colours are
those of Okabe and Ito (2008), which people with colour blindness can tell apart; text, axes and
background are left to the page. Plotly comes with the extra ``report``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from hms_ray.competition.schema import CLASSES
from hms_ray.display.leaderboard import short_names
from hms_ray.errors import ConfigError
from hms_ray.evaluate.metric import SCORE_NAMES

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKERS: Final = ("circle", "square", "diamond", "triangle-up", "cross", "star")
PATTERNS: Final = ("", "/", "x", ".", "-", "+")
QUIET: Final = "#8a8f98"
"""Of what is context: other trials, diagonals, counts."""
_STATE_MARKERS: Final = {"complete": "circle", "pruned": "triangle-down-open"}
_HEIGHT: Final = 380


def label(text: object) -> str:
    """A text of a user as Plotly shows it: it takes some tags, such as links, for HTML."""
    return escape(str(text), quote=False)


def plotly_missing() -> bool:
    """Whether Plotly is not installed."""
    from importlib.util import find_spec

    return find_spec("plotly") is None


def require_plotly() -> None:
    """Checks that Plotly is installed.

    Raises:
        ConfigError: naming the extra.
    """
    if plotly_missing():
        raise ConfigError(
            "the report needs Plotly",
            got="not installed",
            fix="Install it: pip install 'hms_ray[report]'",
        )


def new_figure(height: int = _HEIGHT, **layout: Any) -> Figure:
    """An empty figure, see ``dressed``."""
    require_plotly()
    import plotly.graph_objects as go

    figure = go.Figure()
    return dressed(figure, height, **layout)


def dressed(figure: Figure, height: int = _HEIGHT, **layout: Any) -> Figure:
    """The figure without a template of its own, on a transparent ground."""
    figure.update_layout(
        template={},
        height=height,
        colorway=list(COLOURS),
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 70, "r": 20, "t": 30, "b": 55},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"namelength": -1},
        **layout,
    )
    return figure


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
    """Mean over the folds at each evaluation: ``trial``, ``epoch`` and the objective."""
    return (
        frame.groupby(["trial", "epoch"], sort=True)[objective]
        .mean()
        .reset_index()
        .sort_values(["trial", "epoch"], ignore_index=True)
    )


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


def kl_parts(frame: pd.DataFrame, by: str) -> Figure:
    """KL by ``class`` or ``tier`` (of votes), one bar per model; frame of ``frames.kl_parts``."""
    titles = {"class": "part of the KL", "tier": "mean KL"}
    figure = new_figure(
        barmode="group",
        xaxis={"title": {"text": "class" if by == "class" else "votes of the row"}},
        yaxis={"title": {"text": titles[by]}},
    )
    # A category that looks like a range of numbers must stay text.
    figure.update_xaxes(type="category")
    chosen = frame[frame["by"] == by]
    for place, (name, part) in enumerate(chosen.groupby("model", sort=False)):
        figure.add_bar(
            x=part["part"],
            y=part["kl"].astype(float).round(5),
            name=label(name),
            marker={
                "color": COLOURS[place % 6],
                "pattern": {"shape": PATTERNS[place % 6], "fgcolor": "white"},
            },
            hovertemplate="%{x}: %{y:.4f}",
        )
    return figure


def confusion(frame: pd.DataFrame) -> Figure:
    """Confusion of vote shares with its numbers; frame of ``frames.confusion``."""
    figure = new_figure(
        440,
        xaxis={"title": {"text": "predicted"}, "side": "top"},
        yaxis={"title": {"text": "experts' votes"}, "autorange": "reversed"},
    )
    table = frame.pivot(index="true", columns="predicted", values="share")
    table = table.loc[list(CLASSES), list(CLASSES)]
    ideal = frame.pivot(index="true", columns="predicted", values="ideal")
    figure.add_heatmap(
        z=table.to_numpy().round(4),
        x=list(CLASSES),
        y=list(CLASSES),
        zmin=0,
        zmax=1,
        colorscale="Blues",
        texttemplate="%{z:.2f}",
        customdata=ideal.loc[list(CLASSES), list(CLASSES)].to_numpy().round(4),
        hovertemplate="votes for %{y}: %{x} predicted %{z:.3f}<br>"
        "experts' own share: %{customdata:.3f}<extra></extra>",
        colorbar={"title": {"text": "mean share"}},
        xgap=1,
        ygap=1,
    )
    figure.update_layout(margin={"t": 90, "l": 80})
    return figure


def reliability(frame: pd.DataFrame) -> Figure:
    """Predicted against true shares in a panel per class, with the rows of each bin as bars.

    Args:
        frame: of ``frames.reliability``.
    """
    require_plotly()
    from plotly.subplots import make_subplots

    titles = []
    for name in CLASSES:
        ece = frame.loc[frame["name"] == name, "ece"]
        titles.append(f"{name}, ECE {ece.iloc[0]:.3f}" if len(ece) else name)
    specs = [[{"secondary_y": True}] * 3 for _ in range(2)]
    figure = make_subplots(
        2, 3, subplot_titles=titles, specs=specs, horizontal_spacing=0.09, vertical_spacing=0.16
    )
    dressed(figure, 620, showlegend=True, bargap=0.05)
    for place, name in enumerate(CLASSES):
        part, at = frame[frame["name"] == name], {"row": place // 3 + 1, "col": place % 3 + 1}
        once = {"showlegend": place == 0}
        figure.add_bar(
            x=(part["low"] + part["high"]) / 2,
            y=part["rows"],
            name="rows in the bin",
            marker={"color": QUIET, "opacity": 0.35},
            text=[f"{count:,}" if count else "" for count in part["rows"]],
            textposition="outside",
            textfont={"size": 9},
            cliponaxis=False,
            hovertemplate="%{y:,} rows<extra></extra>",
            secondary_y=True,
            **once,
            **at,
        )
        figure.add_scatter(
            x=[0, 1],
            y=[0, 1],
            mode="lines",
            name="as predicted",
            line={"color": QUIET, "dash": "dash"},
            hoverinfo="skip",
            **once,
            **at,
        )
        known = part[part["rows"] > 0]
        figure.add_scatter(
            x=known["predicted"].round(4),
            y=known["true"].round(4),
            mode="lines+markers",
            name="mean share of the votes",
            line={"color": COLOURS[0], "width": 2},
            marker={"size": 8, "symbol": "circle"},
            customdata=known["rows"],
            hovertemplate="predicted %{x:.3f}, votes %{y:.3f}, %{customdata:,} rows<extra></extra>",
            **once,
            **at,
        )
    figure.update_xaxes(range=[0, 1], dtick=0.25)
    figure.update_yaxes(range=[0, 1.02], dtick=0.25, secondary_y=False)
    most = float(frame["rows"].max()) if len(frame) else 1.0
    # The bars take the lower third.
    figure.update_yaxes(
        range=[0, 3.2 * most], showgrid=False, showticklabels=False, secondary_y=True
    )
    figure.update_xaxes(title={"text": "predicted share"}, row=2)
    figure.update_yaxes(title={"text": "share of the votes"}, col=1, secondary_y=False)
    figure.update_layout(margin={"t": 70}, legend={"y": 1.07})
    return figure


def discrimination(frame: pd.DataFrame) -> Figure:
    """AUROC and AUPRC of each class with their intervals; frame of ``frames.discrimination``."""
    figure = new_figure(
        120 + 45 * max(len(frame), 1),
        xaxis={"title": {"text": "area (right is better)"}, "range": [0, 1.02]},
        yaxis={"autorange": "reversed", "tickvals": list(range(len(frame)))},
    )
    figure.update_yaxes(ticktext=frame["name"].tolist(), zeroline=False)
    for place, (column, title) in enumerate((("auroc", "AUROC"), ("auprc", "AUPRC"))):
        value = frame[column].astype(float)
        figure.add_scatter(
            x=value.round(4),
            y=np.arange(len(frame)) + 0.16 * (2 * place - 1),
            mode="markers",
            name=title,
            marker={"symbol": MARKERS[place], "size": 10, "color": COLOURS[place]},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": _finite(frame[f"{column}_high"] - value),
                "arrayminus": _finite(value - frame[f"{column}_low"]),
                "thickness": 1.5,
            },
            text=frame["name"],
            hovertemplate=f"%{{text}}: {title} %{{x:.3f}}<extra></extra>",
        )
    figure.add_scatter(
        x=frame["share"].astype(float).round(4),
        y=np.arange(len(frame)) + 0.16,
        mode="markers",
        name="AUPRC of a constant",
        marker={"symbol": "line-ns-open", "size": 14, "color": QUIET},
        hovertemplate="share of the votes: %{x:.3f}<extra></extra>",
    )
    return figure


def _finite(values: pd.Series[Any]) -> list[float]:
    return [float(value) if math.isfinite(value) else 0.0 for value in values]


def error_correlation(frame: pd.DataFrame) -> Figure:
    """Correlation of errors with its numbers; frame of ``frames.error_correlation``."""
    names = [f"trial {name}" if name[:1].isdigit() else str(name) for name in frame.index]
    figure = new_figure(
        max(300, 120 + 34 * len(names)),
        yaxis={"autorange": "reversed"},
        xaxis={"tickangle": -45},
    )
    figure.add_heatmap(
        z=frame.to_numpy().round(3),
        x=names,
        y=names,
        colorscale="Blues",
        zmax=1,
        texttemplate="%{z:.2f}",
        hovertemplate="%{x} and %{y}: %{z:.3f}<extra></extra>",
        colorbar={"title": {"text": "correlation"}},
        xgap=1,
        ygap=1,
    )
    figure.update_layout(margin={"l": 130, "b": 80})
    return figure


def blend_weights(frame: pd.DataFrame, n_most: int = 20) -> Figure:
    """Largest weights of a blend, with the range of the nested ones; ``frames.blend_weights``."""
    shown = frame.head(n_most)
    figure = new_figure(
        130 + 26 * max(len(shown), 1),
        xaxis={"title": {"text": "weight"}, "rangemode": "tozero"},
        yaxis={"autorange": "reversed", "type": "category"},
    )
    figure.add_bar(
        y=shown["model"].map(label),
        x=shown["weight"].astype(float).round(5),
        orientation="h",
        name="fitted on all patients (in-sample)",
        marker={"color": COLOURS[0], "opacity": 0.75},
    )
    nested = shown.dropna()
    if len(nested):
        middle = (nested["nested_low"] + nested["nested_high"]) / 2
        figure.add_scatter(
            x=middle,
            y=nested["model"].map(label),
            mode="markers",
            name="range of the nested fits",
            marker={"symbol": "line-ns-open", "size": 1, "color": COLOURS[1]},
            error_x={
                "type": "data",
                "array": (nested["nested_high"] - middle).tolist(),
                "thickness": 2.5,
                "width": 6,
                "color": COLOURS[1],
            },
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    figure.update_layout(margin={"l": 130})
    return figure


def cost(frame: pd.DataFrame) -> Figure:
    """Device hours of each run: training, idle, and what was saved; frame of ``frames.cost``."""
    figure = new_figure(
        150 + 45 * max(len(frame), 1),
        barmode="stack",
        xaxis={"title": {"text": "device hours"}},
        yaxis={"autorange": "reversed", "type": "category"},
    )
    available = frame["slots"] * (frame["seconds"] - frame["start_up_s"])
    idle = (available - frame["training_s"]).clip(lower=0)
    labels = [
        f"{text[:16].replace('T', ' ')}, {work}"
        for text, work in zip(frame["started"], frame["work"], strict=True)
    ]
    parts = (
        ("training", frame["training_s"] - frame["evaluated_s"]),
        ("scoring validation rows", frame["evaluated_s"]),
        ("idle slots", idle),
        ("saved by the fold store", frame["saved_by_store_s"] + frame["saved_by_stages_s"]),
        ("saved by pruning", frame["saved_by_pruning_s"]),
    )
    for place, (name, seconds) in enumerate(parts):
        if not seconds.any():
            continue
        saved = name.startswith("saved")
        figure.add_bar(
            x=(seconds * frame["devices"] / 3600).round(3),
            y=labels,
            orientation="h",
            name=name,
            marker={
                "color": COLOURS[place],
                "opacity": 0.5 if saved else 0.9,
                "pattern": {"shape": PATTERNS[place + 1 if saved else place], "fgcolor": "white"},
            },
            hovertemplate=f"{name}: %{{x:.2f}} h<extra></extra>",
        )
    figure.update_layout(margin={"l": 180}, legend={"traceorder": "normal"})
    return figure
