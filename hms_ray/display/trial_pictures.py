"""Pictures of a trial as PNG files: rows with true and predicted shares, confusion, reliability.

Whoever reads them may not see colours: true shares are filled, predicted ones are hatched, and
bars and images of all rows
are drawn at once, since matplotlib takes longer for a pair of axes than for its content.
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


def rows_picture(title: str, note: str, rows: Sequence[ShownRow | None], columns: int = 3) -> bytes:
    """A PNG of rows: the image of each, and beside it true and predicted shares.

    Args:
        title: of the picture.
        note: a line below it.
        rows: in the order of reading; None leaves a place free.
        columns: rows beside each other.
    """
    sheet = _Sheet(title, note, len(rows), columns)
    for number, row in enumerate(rows):
        if row is not None:
            left, top, width = sheet.place(number, row.title)
            picture = left, top, width - _NAMES - _BAR - 12, _CELL - 14
            sheet.draw(row.image, picture)
            sheet.add_shares(row, left + picture[2] + 8, top, picture[3])
    return sheet.png()


def batch_picture(title: str, note: str, images: Floats, targets: Floats) -> bytes:
    """A PNG of augmented images, each with its largest shares of votes.

    Args:
        title: of the picture.
        note: a line below it.
        images: (n, H, W); at least one.
        targets: (n, 6) shares of votes.
    """
    sheet = _Sheet(title, note, len(images), columns=4)
    for number, (image, shares) in enumerate(zip(images, targets, strict=True)):
        largest = [place for place in np.argsort(-shares, kind="stable")[:3] if shares[place] > 0]
        text = ", ".join(f"{CLASSES[place]} {shares[place]:.2f}" for place in largest)
        left, top, width = sheet.place(number, text)
        sheet.draw(image, (left, top, width, _CELL - 14))
    return sheet.png()


def confusion_picture(title: str, note: str, shares: Floats, ideal: Floats) -> bytes:
    """A PNG of mean predicted shares (columns) by the class that experts voted for (rows).

    Args:
        title: of the picture.
        note: a line below it.
        shares: (6, 6); rows may be NaN.
        ideal: (6, 6) the same for predictions equal to the votes, shown in brackets.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7.6), dpi=DPI)
    axes = figure.subplots()
    _frame(figure, title, note, left=0.1, right=1.0)
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

    figure = Figure(figsize=(12, 7.6), dpi=DPI)
    _frame(figure, title, note, left=0.065, right=0.985)
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
    figure.supxlabel("mean predicted share", fontsize=10, y=0.015)
    figure.supylabel("mean share of the votes", fontsize=10, x=0.012)
    return _saved(figure)


def _frame(figure: Figure, title: str, note: str, *, left: float, right: float) -> None:
    """Title and note, and fixed margins: finding them takes longer than the drawing."""
    figure.subplots_adjust(left, 0.085, right, 0.88, wspace=0.06, hspace=0.14)
    figure.text(_MARGIN / 1200, 0.965, title, fontsize=13, va="center")
    figure.text(_MARGIN / 1200, 0.932, note, fontsize=9.5, va="center")


class _Sheet:
    """A figure whose only axes have pixels as units, from the top left corner, and its cells.

    Args:
        title: of the picture.
        note: a line below it.
        n_cells: number of cells.
        columns: cells beside each other.
    """

    def __init__(self, title: str, note: str, n_cells: int, columns: int) -> None:
        from matplotlib.figure import Figure

        self._columns = columns
        self._height = _HEADER + -(-n_cells // columns) * (_TITLE + _CELL) + _MARGIN
        self._figure = Figure(figsize=(WIDTH / DPI, self._height / DPI), dpi=DPI)
        self._axes = self._figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._pixels = np.ones((self._height, WIDTH, 3), dtype=np.float32)
        self._bars: dict[str, list[tuple[float, float, float, float]]] = {}
        self._axes.text(_MARGIN, 20, title, fontsize=13, va="center")
        self._axes.text(_MARGIN, 44, note, fontsize=9.5, va="center")

    def place(self, number: int, title: str) -> tuple[int, int, int]:
        """Left, top and width of the content of a cell, below its title."""
        cell = (WIDTH - _MARGIN) // self._columns
        left = _MARGIN + number % self._columns * cell
        top = _HEADER + number // self._columns * (_TITLE + _CELL)
        self._axes.text(left, top + 13, title, fontsize=8.5, va="center")
        return left, top + _TITLE, cell - _MARGIN

    def draw(self, image: Floats | None, place: tuple[int, int, int, int]) -> None:
        """Draws an image into left, top, width, height; a frame without one."""
        from matplotlib import colormaps

        left, top, width, height = place
        cell = self._pixels[top : top + height, left : left + width]
        if image is None:
            cell[[0, -1]], cell[:, [0, -1]] = 0.6, 0.6
            middle = left + width / 2, top + height / 2
            self._axes.text(*middle, "no image", ha="center", va="center", color="0.35", fontsize=9)
            return
        # A few extreme pixels would leave the rest in one colour.
        low, high = np.percentile(image, (1, 99))
        levels = (image - low) / max(high - low, 1e-6)
        lines = np.arange(height) * image.shape[0] // height
        columns = np.arange(width) * image.shape[1] // width
        cell[:] = colormaps["viridis"](levels[lines][:, columns])[..., :3]

    def add_shares(self, row: ShownRow, left: float, top: float, height: float) -> None:
        """Adds names of the classes, and bars of the shares of a row."""
        step = height / len(CLASSES)
        self._axes.vlines(left + _NAMES, top, top + height, color="0.4", linewidth=0.6)
        for number, name in enumerate(CLASSES):
            y, half = top + number * step, (step - 3) / 2
            self._axes.text(
                left + _NAMES - 5, y + step / 2, name, fontsize=8, ha="right", va="center"
            )
            for place, (kind, shares) in enumerate(
                (("true", row.true), ("predicted", row.predicted))
            ):
                if shares is not None:
                    width = _BAR * float(shares[number])
                    self._bar(kind, left + _NAMES, y + place * half, width, half)

    def _bar(self, kind: str, left: float, top: float, width: float, height: float) -> None:
        self._bars.setdefault(kind, []).append((left, top, width, height))

    def png(self) -> bytes:
        """The picture."""
        from matplotlib.collections import PolyCollection

        left = WIDTH - _MARGIN - 155 * len(self._bars)
        for kind in tuple(self._bars):
            self._bar(kind, left, 14, 26, 12)
            self._axes.text(left + 32, 20, _LEGEND[kind], fontsize=9, va="center")
            left += 160
        for kind, bars in self._bars.items():
            corners = [
                [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
                for x, y, width, height in bars
            ]
            self._axes.add_collection(
                PolyCollection(corners, zorder=2, **_STYLES[kind]), autolim=False
            )
        whole = (0, WIDTH, self._height, 0)
        self._axes.imshow(self._pixels, extent=whole, aspect="auto", interpolation="nearest")
        self._axes.set(xlim=(0, WIDTH), ylim=(self._height, 0))
        return _saved(self._figure)


_LEGEND: Final = {"true": "share of the votes", "predicted": "predicted share"}
_STYLES: Final[dict[str, dict[str, Any]]] = {
    "true": {"facecolor": _TRUE, "linewidth": 0},
    "predicted": {
        "facecolor": "white",
        "edgecolor": _PREDICTED,
        "hatch": "//////",
        "linewidth": 0.8,
    },
}


def _saved(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI, pil_kwargs={"compress_level": 3})
    return content.getvalue()
