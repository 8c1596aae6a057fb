"""Windows of one or more sources (B, P, F, T) to images (B, C, H, W).

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

from hms_ray.config.inputs import InputConfig, RawConfig, source_path
from hms_ray.config.views import View
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
    """Height and width of the images of windows, as the model sees them.

    Raises:
        ConfigError: as for ``joined_size``, or if ``pad`` is smaller than the joined image.
    """
    height, width = joined_size(config, shapes)
    if config.pad is None:
        return height, width
    if config.pad[0] < height or config.pad[1] < width:
        raise ConfigError(
            f"input.pad must be at least the size of the image, {height} x {width}",
            got=list(config.pad),
            fix="Set a larger input.pad, or a smaller input.size.",
        )
    return config.pad


def joined_size(config: InputConfig, shapes: Shapes) -> tuple[int, int]:
    """Height and width of the joined images of windows, before they are padded.

    Raises:
        ConfigError: if a block does not divide its source's windows, ``rows`` do not divide
            the samples of signals, or joined sources do not fit.
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
    for view in config.parsed_views:
        parts = [_part_size(source, view.picture, config, shapes) for source in view.sources]
        n_panels = parts[0][0]
        heights, widths = [part[1] for part in parts], [part[2] for part in parts]
        if view.join == "in":
            width = _spliced_width(view, heights, widths, config)
            sizes.append((n_panels * heights[0], width))
        elif len(set(widths)) > 1:
            raise ConfigError(
                "the parts of a view joined by over must be equally wide",
                got=f"{' and '.join(map(str, widths))} columns",
                where=f"view {view}",
                fix="Set n_frames or hop_samples of the recipes.",
            )
        else:
            sizes.append((n_panels * sum(heights), widths[0]))
    return sizes


def _part_size(
    source: str, picture: str, config: InputConfig, shapes: Shapes
) -> tuple[int, int, int]:
    """Number of panels in a picture, and height and width of each."""
    n_panels, n_frequencies, n_times = shapes[source]
    block = config.treatment(source).downsample
    place = source_path(source)
    check_blocks(block, n_frequencies, n_times, f"{place}.downsample")
    n_frequencies, n_times = n_frequencies // block[0], n_times // block[1]
    if picture != "signals":
        return n_panels if picture == "panels" else 4, n_frequencies, n_times
    rows = _rows(source, config)
    if n_times % rows:
        raise ConfigError(f"{place}.rows must divide {n_times} samples", got=rows)
    return n_panels, rows, n_times // rows


def _spliced_width(view: View, heights: list[int], widths: list[int], config: InputConfig) -> int:
    if heights[0] != heights[1]:
        raise ConfigError(
            "the parts of a view joined by in must have panels of equal height",
            got=f"{heights[0]} and {heights[1]} rows",
            where=f"view {view}",
            fix="Give both recipes the same frequencies, or rows.",
        )
    removed = config.spliced_columns(view)
    if not 0 < removed < widths[1]:
        raise ConfigError(
            f"a view joined by in must replace 1 to {widths[1] - 1} of {widths[1]} columns",
            got=removed,
            where=f"view {view}",
            fix="Set input.splice_s to the seconds that are replaced.",
        )
    return widths[1] - removed + widths[0]


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
        (B, C, H, W) contiguous, without NaN; H and W as given by ``joined_size``, C is
        ``config.channels``.
    """
    scaled: dict[tuple[str, Scope], Tensor] = {}
    views: list[list[tuple[str, Scope]]] = []
    for view in config.parsed_views:
        views.append([])
        for source in view.sources:
            mode = config.treatment(source).normalisation
            # Other modes do not depend on the view.
            scope = _scope(view) if mode == "per_image" else "panel"
            key = source, scope
            if key not in scaled:
                fitted = (constants or {}).get(source)
                scaled[key] = normalise(downsampled[source], mode, scope, fitted)
            views[-1].append(key)
    channels = [scaled]
    if config.channels == 3:
        channels += [
            {key: contrast(panels) for key, panels in scaled.items()}
            for contrast in (minus_others, minus_neighbours)
        ]
    images = [
        _joined([[channel[key] for key in keys] for keys in views], config) for channel in channels
    ]
    return images[0] if len(images) == 1 else torch.cat(images, dim=1)


def padded(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) with zeros around them, up to ``size``; an odd one is below or to the right."""
    down, right = size[0] - images.shape[2], size[1] - images.shape[3]
    if not down and not right:
        return images
    left, top = right // 2, down // 2
    return F.pad(images, (left, right - left, top, down - top))


def minus_others(x: Tensor) -> Tensor:
    """(B, P, F, T) minus, for each panel, the mean of all others; P is at least 2."""
    return x - (x.sum(1, keepdim=True) - x) / (x.shape[1] - 1)


def minus_neighbours(x: Tensor) -> Tensor:
    """(B, P, F, T) minus, for each panel, the mean of those before and after it.

    The first and the last panel have one neighbour; P is at least 2.
    """
    inner = (x[:, :-2] + x[:, 2:]) / 2
    return x - torch.cat([x[:, 1:2], inner, x[:, -2:-1]], dim=1)


def _joined(parts_of_views: list[list[Tensor]], config: InputConfig) -> Tensor:
    """The (B, 1, H, W) image of the normalised (B, P, F, T) of each source of each view."""
    pictures: list[Tensor] = []
    for view, parts in zip(config.parsed_views, parts_of_views, strict=True):
        picture = _picture(view, parts, config)
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


def _picture(view: View, parts: list[Tensor], config: InputConfig) -> Tensor:
    """The (B, h, w) picture of the (B, P, F, T) of each source of a view."""
    if view.picture == "signals":
        rows = [_rows(source, config) for source in view.sources]
        parts = [_signals(part, n) for part, n in zip(parts, rows, strict=True)]
    if view.join == "over":
        panels = torch.cat(parts, dim=2)
    elif view.join == "in":
        panels = _spliced(parts[0], parts[1], config.spliced_columns(view))
    else:
        (panels,) = parts
    return _panels(panels) if view.picture == "signals" else PANEL_PICTURES[view.picture](panels)


def _spliced(centre: Tensor, whole: Tensor, removed: int) -> Tensor:
    """(B, P, h, w - removed + v): ``centre`` (..., v) for the middle columns of (..., w)."""
    first = (whole.shape[-1] - removed) // 2
    return torch.cat([whole[..., :first], centre, whole[..., first + removed :]], dim=-1)


def _rows(source: str, config: InputConfig) -> int:
    signals = config.source_config(source)
    return signals.rows if isinstance(signals, RawConfig) else 1


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
    """(B, P, 1, T) as (B, P, rows, T / rows): a column has ``rows`` consecutive samples."""
    batch, n_signals, _, n_times = x.shape
    return x.reshape(batch, n_signals, n_times // rows, rows).transpose(2, 3)


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
