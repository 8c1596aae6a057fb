"""Pictures of a trial as PNG files: rows with true and predicted shares, confusion, reliability.

Whoever reads them may not see colours: true shares are filled, predicted ones are hatched, and
numbers stand beside them. Pictures of many rows are drawn in one pair of axes: one pair per row
takes several times as long.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.schema import CLASSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI: Final = 100
WIDTH: Final = 1200
"""Pixels; TensorBoard shows them in full size on a click."""
_TRUE: Final = "#1b4f8a"
_PREDICTED: Final = "#e08214"
"""Blue and orange differ for every kind of colour vision."""
_MARGIN: Final = 16
_HEADER: Final = 64
_TITLE: Final = 22
_CELL: Final = 150
_NAMES: Final = 58
"""Width of class names."""
_BAR: Final = 120
"""Width of a bar of share 1."""

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ShownRow:
    """A row to draw.

    Attributes:
        title: one short line, such as its id, votes and KL.
        true: (6,) shares of the votes.
        predicted: (6,) shares; None if there is no prediction.
        image: (H, W) as the model sees it; None if it cannot be made.
    """

    title: str
    true: Floats
    predicted: Floats | None
    image: Floats | None


def rows_picture(title: str, note: str, rows: Sequence[ShownRow], columns: int = 3) -> bytes:
    """A PNG of rows: the image of each, and beside it true and predicted shares.

    Args:
        title: of the picture.
        note: a line below it.
        rows: in the order of reading; at least one.
        columns: rows beside each other.
    """
    n_lines = -(-len(rows) // columns)
    height = _HEADER + n_lines * (_TITLE + _CELL) + _MARGIN
    figure, axes = _sheet(height)
    _head(axes, title, note)
    cell = (WIDTH - _MARGIN) / columns
    bars: list[tuple[float, float, float, float, str]] = []
    for number, row in enumerate(rows):
        left = _MARGIN + number % columns * cell
        top = _HEADER + number // columns * (_TITLE + _CELL)
        axes.text(left, top + 13, row.title, fontsize=8.5, va="center", clip_on=False)
        place = left, top + _TITLE, cell - _MARGIN - _NAMES - _BAR - 12, _CELL - 14
        _image(axes, row.image, place)
        bars += _share_bars(axes, row, place[0] + place[2] + 8, place[1], place[3])
    _draw_bars(axes, bars)
    _legend(axes, predicted=any(row.predicted is not None for row in rows))
    return _png(figure, axes, height)


def batch_picture(title: str, note: str, images: Floats, targets: Floats) -> bytes:
    """A PNG of augmented images, each with its largest shares of votes.

    Args:
        title: of the picture.
        note: a line below it.
        images: (n, H, W); at least one.
        targets: (n, 6) shares of votes.
    """
    columns = 4
    n_lines = -(-len(images) // columns)
    height = _HEADER + n_lines * (_TITLE + _CELL) + _MARGIN
    figure, axes = _sheet(height)
    _head(axes, title, note)
    cell = (WIDTH - _MARGIN) / columns
    for number, (image, shares) in enumerate(zip(images, targets, strict=True)):
        left = _MARGIN + number % columns * cell
        top = _HEADER + number // columns * (_TITLE + _CELL)
        largest = [place for place in np.argsort(-shares, kind="stable")[:3] if shares[place] > 0]
        text = ", ".join(f"{CLASSES[place]} {shares[place]:.2f}" for place in largest)
        axes.text(left, top + 13, text, fontsize=8.5, va="center")
        _image(axes, image, (left, top + _TITLE, cell - _MARGIN, _CELL - 14))
    return _png(figure, axes, height)


def confusion_picture(title: str, note: str, shares: Floats, ideal: Floats) -> bytes:
    """A PNG of mean predicted shares (columns) by the class that experts voted for (rows).

    Args:
        title: of the picture.
        note: a line below it.
        shares: (6, 6); rows may be NaN.
        ideal: (6, 6) the same for predictions equal to the votes, shown in brackets.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7.2), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    figure.suptitle(title, fontsize=13, x=0.02, ha="left")
    axes.set_title(note, fontsize=9.5, loc="left")
    shown = axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1)
    for line in range(len(CLASSES)):
        for column in range(len(CLASSES)):
            value = shares[line, column]
            text = "no votes" if np.isnan(value) else f"{value:.2f}\n({ideal[line, column]:.2f})"
            colour = "white" if value > 0.55 else "black"
            axes.text(column, line, text, ha="center", va="center", color=colour, fontsize=10)
    axes.set_xticks(range(len(CLASSES)), CLASSES)
    axes.set_yticks(range(len(CLASSES)), CLASSES)
    axes.set_xlabel("mean predicted share (in brackets: of the votes themselves)")
    axes.set_ylabel("class of the votes")
    figure.colorbar(shown, ax=axes, shrink=0.8)
    return _saved(figure)


def reliability_picture(
    title: str, note: str, predicted: Floats, true: Floats, counts: NDArray[np.int64], ece: Floats
) -> bytes:
    """A PNG of true against predicted shares by class, with the rows of each bin.

    Args:
        title: of the picture.
        note: a line below it.
        predicted: (6, B) mean predicted share of each bin; NaN without rows.
        true: (6, B) mean share of the votes.
        counts: (6, B) rows.
        ece: (6,) expected calibration error.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7.6), dpi=DPI, layout="constrained")
    figure.suptitle(f"{title}\n", fontsize=13, x=0.02, ha="left")
    figure.text(0.02, 0.945, note, fontsize=9.5)
    panels = figure.subplots(2, 3, sharex=True, sharey=True).ravel()
    for number, (axes, name) in enumerate(zip(panels, CLASSES, strict=True)):
        axes.plot([0, 1], [0, 1], color="0.55", linestyle="--", linewidth=1)
        axes.plot(
            predicted[number], true[number], color=_TRUE, marker="o", markersize=5, linewidth=1.2
        )
        for x, y, n in zip(predicted[number], true[number], counts[number], strict=True):
            if n:
                below = y > x
                axes.annotate(
                    f"{n:,}",
                    (x, y),
                    xytext=(0, 7 if below else -7),
                    textcoords="offset points",
                    ha="center",
                    va="bottom" if below else "top",
                    fontsize=7.5,
                )
        axes.set_title(f"{name}, ECE {ece[number]:.3f}", fontsize=10.5)
        axes.set(xlim=(-0.04, 1.04), ylim=(-0.08, 1.1))
        axes.grid(color="0.9")
    figure.supxlabel("mean predicted share", fontsize=10)
    figure.supylabel("mean share of the votes", fontsize=10)
    return _saved(figure)


def _sheet(height: float) -> tuple[Figure, Axes]:
    """A figure whose only axes have pixels as units, from the top left corner."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    return figure, axes


def _head(axes: Axes, title: str, note: str) -> None:
    axes.text(_MARGIN, 20, title, fontsize=13, va="center")
    axes.text(_MARGIN, 44, note, fontsize=9.5, va="center")


def _image(axes: Axes, image: Floats | None, place: tuple[float, float, float, float]) -> None:
    """Draws an image into left, top, width, height; a frame without one."""
    from matplotlib.patches import Rectangle

    left, top, width, height = place
    if image is None:
        axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="0.6"))
        middle = left + width / 2, top + height / 2
        axes.text(*middle, "no image", ha="center", va="center", color="0.35", fontsize=9)
        return
    # A few extreme pixels would leave the rest in one colour.
    low, high = np.percentile(image, (1, 99))
    axes.imshow(
        image,
        cmap="viridis",
        vmin=low,
        vmax=max(high, low + 1e-6),
        extent=(left, left + width, top + height, top),
        aspect="auto",
        interpolation="nearest",
    )


def _share_bars(
    axes: Axes, row: ShownRow, left: float, top: float, height: float
) -> list[tuple[float, float, float, float, str]]:
    """Names of the classes, and the bars to draw: left, top, width, height, kind."""
    bars, step = [], height / len(CLASSES)
    axes.vlines(left + _NAMES, top, top + height, color="0.4", linewidth=0.6)
    for number, name in enumerate(CLASSES):
        y = top + number * step
        axes.text(left + _NAMES - 5, y + step / 2, name, fontsize=8, ha="right", va="center")
        shown = [("true", row.true), ("predicted", row.predicted)]
        for place, (kind, shares) in enumerate(shown):
            if shares is not None:
                half = (step - 3) / 2
                share = float(shares[number])
                bars.append((left + _NAMES, y + place * half, _BAR * share, half, kind))
    return bars


def _draw_bars(axes: Axes, bars: Sequence[tuple[float, float, float, float, str]]) -> None:
    for kind, style in _STYLES.items():
        chosen = [bar[:4] for bar in bars if bar[4] == kind]
        if chosen:
            left, top, width, height = np.array(chosen).T
            axes.barh(top, width, height, left=left, align="edge", **style)


_STYLES: Final[dict[str, dict[str, Any]]] = {
    "true": {"color": _TRUE, "linewidth": 0},
    "predicted": {
        "facecolor": "white",
        "edgecolor": _PREDICTED,
        "hatch": "//////",
        "linewidth": 0.8,
    },
}


def _legend(axes: Axes, *, predicted: bool) -> None:
    names = {"true": "share of the votes", "predicted": "predicted share"}
    left = WIDTH - _MARGIN - 290.0
    for kind, style in _STYLES.items():
        if kind == "true" or predicted:
            axes.barh(14, 26, 12, left=left, align="edge", **style)
            axes.text(left + 32, 20, names[kind], fontsize=9, va="center")
            left += 155


def _png(figure: Figure, axes: Axes, height: float) -> bytes:
    # Images and bars have changed the limits.
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    return _saved(figure)


def _saved(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()
