"""Plotly figures of a ladder; see ``figures``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.report.figure_style import COLOURS, MARKERS, QUIET, label, new_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_VERDICTS: Final = {"better": "circle", "tie": "circle-open", "worse": "x", "same": "line-ns-open"}


def step_scores(frame: pd.DataFrame) -> Figure:
    """KL of each step with its interval, one mark per score; frame of ``steps``."""
    names = list(dict.fromkeys(frame["step"]))
    figure = _by_step(names, "KL (left is better)")
    shown = [group for group in SCORE_NAMES if group in set(frame["group"])]
    for place, group in enumerate(shown):
        part = frame[frame["group"] == group].set_index("step").loc[names]
        figure.add_scatter(
            x=part["kl"].round(5),
            y=np.arange(len(names)) + 0.22 * (place - (len(shown) - 1) / 2),
            mode="markers",
            name=SCORE_NAMES[group],
            marker={"symbol": MARKERS[place], "size": 9, "color": COLOURS[place]},
            error_x=_ends(part["kl"], part["low"], part["high"]),
            text=[label(name) for name in names],
            hovertemplate=f"%{{text}}: {SCORE_NAMES[group]} %{{x:.4f}}<extra></extra>",
        )
    return figure


def forest(frame: pd.DataFrame, group: str) -> Figure:
    """Differences to the baselines with their intervals, marked by verdict.

    Args:
        frame: of ``steps``.
        group: of rows, such as ``kl_10``.
    """
    part = frame[(frame["group"] == group) & frame["difference"].notna()]
    names = [f"{step} - {base}" for step, base in zip(part["step"], part["baseline"], strict=True)]
    title = f"difference of {SCORE_NAMES.get(group, group)} to the baseline (left is better)"
    figure = _by_step(names, title)
    figure.add_vline(x=0, line={"color": QUIET, "dash": "dash"})
    for place, verdict in enumerate(_VERDICTS):
        chosen = part["verdict"].eq(verdict).to_numpy()
        if not chosen.any():
            continue
        lines = part[chosen]
        figure.add_scatter(
            x=lines["difference"].astype(float).round(5),
            y=np.flatnonzero(chosen),
            mode="markers",
            name=verdict,
            marker={"symbol": _VERDICTS[verdict], "size": 10, "color": COLOURS[place]},
            error_x=_ends(lines["difference"], lines["difference_low"], lines["difference_high"]),
            text=np.array([label(name) for name in names])[chosen],
            hovertemplate="%{text}: %{x:+.4f}<extra></extra>",
        )
    return figure


def _by_step(names: list[str], title: str) -> Figure:
    figure = new_figure(
        150 + 34 * max(len(names), 1),
        xaxis={"title": {"text": title}, "zeroline": False},
        yaxis={
            "autorange": "reversed",
            "tickvals": list(range(len(names))),
            "ticktext": [label(name) for name in names],
            "zeroline": False,
        },
    )
    longest = max(map(len, names), default=0)
    figure.update_layout(margin={"l": min(420, 30 + 7 * longest)})
    return figure


def _ends(value: pd.Series[Any], low: pd.Series[Any], high: pd.Series[Any]) -> dict[str, Any]:
    """Error bars from the ends of intervals; none where they are infinite."""

    def finite(lengths: pd.Series[Any]) -> list[float]:
        return [float(one) if math.isfinite(one) else 0.0 for one in lengths.astype(float)]

    return {
        "type": "data",
        "symmetric": False,
        "array": finite(high - value),
        "arrayminus": finite(value - low),
        "thickness": 1.5,
    }
