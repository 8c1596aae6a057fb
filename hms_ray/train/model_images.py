"""The images of a model: one tensor, or one per branch."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

ModelImages = Tensor | tuple[Tensor, ...]
"""(B, C, H, W); with branches, such a tensor for each, of the same rows."""
ImageSizes = tuple[int, int] | tuple[tuple[int, int], ...]
"""Height and width of the images of a model; with branches, of those of each."""


def as_tuple(images: ModelImages) -> tuple[Tensor, ...]:
    """The image of each branch, or the only one."""
    return (images,) if isinstance(images, Tensor) else images


def for_model(images: Iterable[Tensor], *, branched: bool) -> ModelImages:
    """The argument of a model with or without branches."""
    found = tuple(images)
    return found if branched else found[0]


def split_rows(images: ModelImages, n_parts: int) -> list[ModelImages]:
    """The images of nearly equal parts of the rows, in order."""
    if isinstance(images, Tensor):
        return list(images.tensor_split(n_parts))
    return list(zip(*(image.tensor_split(n_parts) for image in images), strict=True))


def each_size(sizes: ImageSizes) -> tuple[tuple[int, int], ...]:
    """The size of each image."""
    if isinstance(sizes[0], int):
        return (sizes,)
    return sizes
