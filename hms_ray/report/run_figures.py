"""Plotly figures of the blend and the cost of a study; see ``figures``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from hms_ray.report.figure_style import (
    COLOURS,
    PATTERNS,
    label,
    new_figure,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


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
            marker={"symbol": "line-ew-open", "size": 8, "color": COLOURS[1]},
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
