"""Plotly figures of the predictions of a study; see ``figures``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hms_ray.competition.schema import CLASSES
from hms_ray.report.figure_style import (
    COLOURS,
    MARKERS,
    PATTERNS,
    QUIET,
    dressed,
    label,
    new_figure,
    require_plotly,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


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
