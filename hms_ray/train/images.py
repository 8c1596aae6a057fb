"""Images of rows, computed on the device from the windows of one or more sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.profiler import record_function

from hms_ray.augment.mixup import mix_signals
from hms_ray.augment.mosaic import mosaic_spans
from hms_ray.augment.narrow_band import frequencies_of
from hms_ray.augment.plan import AugmentationPlan, augment_images
from hms_ray.augment.test_time import check_flips, flips_of
from hms_ray.augment.windows import augment_windows, check_panels
from hms_ray.config.augment_checks import centre_sources
from hms_ray.config.augmentation import AugmentConfig
from hms_ray.config.inputs import InputConfig, used_sources
from hms_ray.config.prediction import AS_THEY_ARE, PredictionConfig, RowVariant
from hms_ray.errors import TrainingError
from hms_ray.train.batches import Batch, RowIndices, SourceRows, chunks
from hms_ray.train.cancel import check_cancelled
from hms_ray.train.downsampled import DownsampledWindows
from hms_ray.train.model_images import ImageSizes, ModelImages, for_model
from hms_ray.train.process import Process
from hms_ray.train.windows import WindowSource
from hms_ray.transforms.fit_statistics import FITS
from hms_ray.transforms.normalise import Constants
from hms_ray.transforms.views import image_size, join_views, joined_size, padded, view_widths


class HasSourceRows(Protocol):
    """Rows with located windows: a fold's data, or recordings to predict."""

    @property
    def sources(self) -> Mapping[str, SourceRows]:
        """Name of each source in use -> its windows."""


class Images:
    """Makes images of rows on the device.

    Args:
        data: a fold's data, or rows that are only predicted.
        windows: source -> its windows, for every source of the views.
        config: views, normalisation, downsampling and size; with branches, the views of all.
        dtype: of the images: float32 or float64.
        cache_bytes: memory for the cache of downsampled windows (see ``DownsampledWindows``),
            divided among the sources; default: no cache.
        branches: input of the image of each branch. Default: there is one image, of ``config``.

    Attributes:
        sizes: height and width of each image.
        joined: what augmentation of images needs: height and width of an image before it is
            padded, and the widths of its views before it is resized.
        n_channels: channels of the images.
        constants: source -> fitted constants of its normalisation, if it has any.
    """

    def __init__(
        self,
        data: HasSourceRows,
        windows: Mapping[str, WindowSource],
        config: InputConfig,
        dtype: torch.dtype,
        cache_bytes: int = 0,
        branches: Sequence[InputConfig] = (),
    ) -> None:
        shapes = {source: rows.shape for source, rows in data.sources.items()}
        self._inputs, self._branched = tuple(branches) or (config,), bool(branches)
        self.sizes = tuple(image_size(one, shapes) for one in self._inputs)
        self.n_channels = config.channels
        # Branches have no augmentation that needs it.
        first = self._inputs[0]
        self.joined = joined_size(first, shapes), view_widths(first, shapes)
        self.constants: dict[str, Constants] = {}
        self._config, self._data = config, data
        self._used = tuple(used_sources(config))
        self._panels: dict[str, tuple[str, ...]] = {
            source: data.sources[source].pack.panels for source in self._used
        }
        self._centres = centre_sources(config)
        self._frequencies = {
            source: found
            for source in self._used
            if source != "kaggle"
            and (found := frequencies_of(config.source_config(source))) is not None
        }
        self._downsampled = {}
        for source in self._used:
            block = config.treatment(source).downsample
            panels, frequencies, times = shapes[source]
            n_bytes = panels * frequencies * times // (block[0] * block[1]) * dtype.itemsize
            self._downsampled[source] = DownsampledWindows(
                windows[source],
                data.sources[source].starts,
                block,
                dtype,
                capacity=cache_bytes // len(self._used) // n_bytes,
            )

    @property
    def size(self) -> ImageSizes:
        """Height and width of the images; with branches, of those of each."""
        return self.sizes if self._branched else self.sizes[0]

    @property
    def n_cacheable(self) -> int:
        """Rows whose windows are read and downsampled once only."""
        return min(downsampled.capacity for downsampled in self._downsampled.values())

    def fit(self, rows: RowIndices, batch_size: int, process: Process) -> None:
        """Fits the constants of all normalisations that have any.

        Rank 0 fits and broadcasts, so that all ranks have the same bits for any world size.

        Args:
            rows: training rows of the fold.
            batch_size: windows in memory at once.
            process: this rank.
        """
        for source, downsampled in self._downsampled.items():
            mode = self._config.treatment(source).normalisation
            if mode not in FITS:
                continue
            starts = self._data.sources[source].starts[rows]
            in_file_order = rows[np.argsort(starts, kind="stable")]
            windows = partial(
                _until_cancelled, downsampled, chunks(in_file_order, batch_size), process
            )
            self.constants[source] = process.call_on_rank0(partial(FITS[mode], windows))

    def normalisation(self) -> dict[str, dict[str, Any]]:
        """Source -> ``mode`` and, if fitted, ``mean`` and ``std``: numbers or lists."""
        return {
            source: {
                "mode": self._config.treatment(source).normalisation,
                **(self.constants[source].plain() if source in self.constants else {}),
            }
            for source in self._downsampled
        }

    def load_normalisation(self, stored: Mapping[str, Mapping[str, Any]]) -> None:
        """Sets the constants to those of a trained fold, instead of fitting them.

        Args:
            stored: the fold's ``normalisation()``.

        Raises:
            TrainingError: if its sources or modes differ from those here, or constants are
                missing.
        """
        modes: dict[str, str] = {
            source: self._config.treatment(source).normalisation for source in self._downsampled
        }
        found = {source: str(entry.get("mode")) for source, entry in stored.items()}
        if found != modes:
            raise TrainingError(
                "a fold's normalisation must match its inputs",
                got=_listed(found),
                where=f"inputs of {_listed(modes)}",
            )
        try:
            self.constants = {
                source: Constants.from_plain(entry)
                for source, entry in stored.items()
                if self._config.treatment(source).normalisation in FITS
            }
        except (KeyError, TypeError, ValueError):
            raise TrainingError(
                "a fold's normalisation must contain the fitted mean and std",
                got=_listed({source: ", ".join(entry) for source, entry in stored.items()}),
            ) from None

    def check_augment(self, config: AugmentConfig) -> None:
        """Checks that these images allow an augmentation.

        Raises:
            ConfigError: if a panel has no counterpart on the other side, a chain has no
                panel, or a view has too few columns for a mosaic.
        """
        check_panels(config, self._panels)
        if config.mosaic is not None:
            (_, width), widths = self.joined
            mosaic_spans(width, widths)

    def check_prediction(self, config: PredictionConfig) -> None:
        """Checks that these images allow the flips of predictions.

        Raises:
            ConfigError: if a panel has no counterpart on the other side.
        """
        check_flips(config, self._panels)

    def for_rows(
        self, batches: Sequence[RowIndices], variant: RowVariant = AS_THEY_ARE
    ) -> Iterator[ModelImages]:
        """Yields the (B, C, H, W) images of each batch of rows, without random augmentation."""
        plans = [AugmentationPlan(windows=flips_of(variant, len(rows))) for rows in batches]
        starts = {}
        if by := variant.shift_s:
            starts = {
                source: [
                    self._data.sources[source].shifted(rows, np.full(len(rows), by))
                    for rows in batches
                ]
                for source in self._used
            }
        for images in self._make(batches, plans, starts):
            yield self._padded(images)

    def _padded(self, images: Iterable[Tensor]) -> ModelImages:
        pairs = zip(images, self.sizes, strict=True)
        # Mixtures of images with several channels have another memory order.
        made = (
            padded(image, size).contiguous(memory_format=torch.channels_last)
            for image, size in pairs
        )
        return for_model(made, branched=self._branched)

    def _starts(self, source: str, batch: Batch) -> RowIndices:
        """First pack positions of the windows of a batch."""
        windows, places = self._data.sources[source], batch.needed
        if batch.labels is not None:
            if windows.labels is None:
                raise TrainingError("label rows need windows of their own (SourceRows.labels)")
            windows, places = windows.labels, batch.labels
        shifts_s = self._shifts(source, batch)
        return windows.starts[places] if shifts_s is None else windows.shifted(places, shifts_s)

    def _shifts(self, source: str, batch: Batch) -> NDArray[np.float64] | None:
        """Seconds by which the windows of a batch are shifted; None without shifts."""
        centre = batch.centre_shifts_s if source in self._centres else None
        if batch.shifts_s is None or centre is None:
            return batch.shifts_s if centre is None else centre
        return batch.shifts_s + centre

    def for_training(self, batches: Sequence[Batch]) -> Iterator[ModelImages]:
        """Yields the (b, C, H, W) augmented images of this rank's part of each batch."""
        plans = [batch.plan for batch in batches]
        starts = {
            source: [self._starts(source, batch) for batch in batches]
            for source in self._used
            if any(batch.labels is not None for batch in batches)
            or any(self._shifts(source, batch) is not None for batch in batches)
        }
        made = self._make([batch.needed for batch in batches], plans, starts)
        for batch in batches:
            with record_function("images"):
                # Mixup and blocks are the same for the images of all branches.
                augmented = (
                    augment_images(image, batch.plan, len(batch.rows)) for image in next(made)
                )
                images = self._padded(augmented)
            yield images

    def _make(
        self,
        batches: Sequence[RowIndices],
        plans: Sequence[AugmentationPlan],
        starts: Mapping[str, Sequence[RowIndices]],
    ) -> Iterator[list[Tensor]]:
        streams = [
            downsampled.stream(batches, starts.get(source))
            for source, downsampled in self._downsampled.items()
        ]
        for plan, windows in zip(plans, zip(*streams, strict=True), strict=True):
            downsampled = {
                source: self._augmented(source, values, plan)
                for source, values in zip(self._downsampled, windows, strict=True)
            }
            images = (join_views(downsampled, one, self.constants) for one in self._inputs)
            yield [image.contiguous(memory_format=torch.channels_last) for image in images]

    def _augmented(self, source: str, windows: Tensor, plan: AugmentationPlan) -> Tensor:
        if plan.signals is not None:
            windows = mix_signals(windows, plan.signals)
        if plan.windows is not None:
            panels, frequencies = self._panels[source], self._frequencies.get(source)
            windows = augment_windows(windows, plan.windows, panels, source, frequencies)
        return windows


def _until_cancelled(
    downsampled: DownsampledWindows, batches: Sequence[RowIndices], process: Process
) -> Iterator[Tensor]:
    """Windows of batches, for rank 0 alone."""
    for windows in downsampled.stream(batches):
        check_cancelled(process)
        yield windows


def _listed(texts: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {text}" for name, text in texts.items()) or "nothing"
