"""What all Plotly figures share: colours, dashes, markers, patterns, and no ground of their own."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from hms_ray.errors import ConfigError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKERS: Final = ("circle", "square", "diamond", "triangle-up", "cross", "star")
PATTERNS: Final = ("", "/", "x", ".", "-", "+")
QUIET: Final = "#8a8f98"
"""Of what is context: other trials, diagonals, counts."""
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
