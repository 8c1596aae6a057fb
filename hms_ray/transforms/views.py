"""Windows of one or more sources (B, P, F, T) to images (B, 1, H, W).

Order: windows are downsampled; each view normalises in its own scope and makes its picture;
pictures are resized to a common height and joined side by side; the result is resized. All
of it is batched tensor code on the device of the windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from hms_ray.config.inputs import InputConfig, View
from hms_ray.errors import ConfigError
from hms_ray.transforms.downsample import check_blocks
from hms_ray.transforms.normalise import Constants, Scope, normalise

Shape = tuple[int, int, int]
"""Number of panels (or signals), frequencies and times of a source's windows."""
Shapes = Mapping[str, Shape]
"""Source -> shape of its windows, before downsampling."""

PERCENTILES: Final = (20, 40, 60, 80)
"""Percentiles over the panels, point by point (published)."""


def image_size(config: InputConfig, shapes: Shapes) -> tuple[int, int]:
    """Height and width of the images of windows.

    Raises:
        ConfigError: if a block does not divide its source's windows, or ``input.raw.rows``
            does not divide the samples of signals.
    """
    pictures = _picture_sizes(config, shapes)
    if config.size is not None:
        return config.size
    return config.height or pictures[0][0], sum(width for _, width in pictures)


def view_widths(config: InputConfig, shapes: Shapes) -> tuple[int, ...]:
    """Widths of the views within the joined image, before it is resized.

    Raises:
        ConfigError: as for ``image_size``.
    """
    return tuple(width for _, width in _picture_sizes(config, shapes))


def _picture_sizes(config: InputConfig, shapes: Shapes) -> list[tuple[int, int]]:
    sizes = []
    for source, picture in config.parsed_views:
        n_panels, n_frequencies, n_times = shapes[source]
        block = config.treatment(source).downsample
        where = "input.downsample" if source == "kaggle" else f"input.{source}.downsample"
        check_blocks(block, n_frequencies, n_times, where)
        n_frequencies, n_times = n_frequencies // block[0], n_times // block[1]
        if picture == "signals":
            if n_times % config.raw.rows:
                raise ConfigError(
                    f"input.raw.rows must divide {n_times} samples", got=config.raw.rows
                )
            sizes.append((n_panels * config.raw.rows, n_times // config.raw.rows))
        else:
            sizes.append(((n_panels if picture == "panels" else 4) * n_frequencies, n_times))
    return sizes


def join_views(
    downsampled: Mapping[str, Tensor],
    config: InputConfig,
    constants: Mapping[str, Constants] | None = None,
) -> Tensor:
    """Joins the pictures of all views side by side and resizes the result.

    Args:
        downsampled: source -> (B, P, F, T), float32 or float64, NaN allowed.
        config: views, normalisation and size.
        constants: source -> constants of the fold, for fitted normalisations.

    Returns:
        (B, 1, H, W) contiguous, without NaN; H and W as given by ``image_size``.
    """
    scaled: dict[tuple[str, Scope], Tensor] = {}
    pictures: list[Tensor] = []
    for view in config.parsed_views:
        mode = config.treatment(view.source).normalisation
        # Other modes do not depend on the view.
        scope = _scope(view) if mode == "per_image" else "panel"
        key = view.source, scope
        if key not in scaled:
            fitted = (constants or {}).get(view.source)
            scaled[key] = normalise(downsampled[view.source], mode, scope, fitted)
        picture = _picture(view, scaled[key], config)
        height = config.height or (pictures[0] if pictures else picture).shape[1]
        pictures.append(_resized(picture.unsqueeze(1), (height, picture.shape[2])).squeeze(1))
    joined = pictures[0] if len(pictures) == 1 else torch.cat(pictures, dim=2)
    image = joined.unsqueeze(1)
    return image if config.size is None else _resized(image, config.size)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    if size == tuple(image.shape[2:]):
        return image
    # Without antialiasing, a reduction by more than two would skip pixels.
    return F.interpolate(image, size, mode="bilinear", antialias=True)


def _picture(view: View, x: Tensor, config: InputConfig) -> Tensor:
    """The (B, h, w) picture of (B, P, F, T)."""
    if view.picture == "signals":
        return _signals(x, config.raw.rows)
    return PANEL_PICTURES[view.picture](x)


def _scope(view: View) -> Scope:
    """Scope of the statistics of per-image normalisation."""
    return "panel" if view.picture in ("panels", "signals") else "image"


def _panels(x: Tensor) -> Tensor:
    return x.flatten(1, 2)


def _statistics(x: Tensor) -> Tensor:
    smallest, largest = x.amin(1), x.amax(1)
    return torch.cat([smallest, largest, x.mean(1), largest - smallest], dim=1)


def _percentiles(x: Tensor) -> Tensor:
    ranked = list(x.unbind(1))
    # Odd-even transposition sort: the bits of torch.sort, for four panels seven times as fast
    # (measured, 32 x 4 x 128 x 256 on one core).
    for turn in range(len(ranked)):
        for first in range(turn % 2, len(ranked) - 1, 2):
            low, high = ranked[first], ranked[first + 1]
            ranked[first], ranked[first + 1] = torch.minimum(low, high), torch.maximum(low, high)
    pictures = []
    for percentile in PERCENTILES:
        below, part = divmod(percentile * (len(ranked) - 1), 100)
        above = min(below + 1, len(ranked) - 1)
        pictures.append(torch.lerp(ranked[below], ranked[above], part / 100))
    return torch.cat(pictures, dim=1)


def _signals(x: Tensor, rows: int) -> Tensor:
    """(B, P, 1, T) as (B, P * rows, T / rows): a column has ``rows`` consecutive samples."""
    batch, n_signals, _, n_times = x.shape
    folded = x.reshape(batch, n_signals, n_times // rows, rows)
    return folded.transpose(2, 3).reshape(batch, n_signals * rows, n_times // rows)


PANEL_PICTURES: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "panels": _panels,
    "statistics": _statistics,
    "percentiles": _percentiles,
}
"""Name of a picture -> function from (B, P, F, T) to (B, H, T).

``panels`` stacks the panels along frequency in the pack's order (LL, RL, LP, RP for
kaggle); ``statistics`` stacks minimum, maximum, mean and maximum - minimum over the panels,
point by point; ``percentiles`` stacks the four ``PERCENTILES``, linear between ranks.
"""
