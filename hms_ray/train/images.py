"""Images of rows, made on the device from the windows of one or more sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.augment.mosaic import mosaic_spans
from hms_ray.augment.plan import augment_images
from hms_ray.augment.windows import WindowPlan, augment_windows, check_panels
from hms_ray.config.augmentation import AugmentConfig
from hms_ray.config.inputs import InputConfig
from hms_ray.errors import TrainingError
from hms_ray.train.batches import Batch, Rows, SourceRows, chunks
from hms_ray.train.downsampled import DownsampledWindows
from hms_ray.train.process import Process
from hms_ray.train.windows import WindowSource
from hms_ray.transforms.fit_statistics import FITS
from hms_ray.transforms.normalise import Constants
from hms_ray.transforms.views import image_size, join_views, view_widths

Shifts = NDArray[np.float64]


class Located(Protocol):
    """Rows whose windows are known: a fold's data, or recordings to predict."""

    @property
    def sources(self) -> Mapping[str, SourceRows]:
        """Name of each source in use -> its windows."""


class Images:
    """Images of rows, made on the device.

    Args:
        data: the fold, or rows that are only predicted.
        windows: source -> its windows, for every source of the views.
        config: views, normalisation, block and size.
        dtype: of the images: float32 or float64.
        cache_bytes: memory for downsampled windows (see ``DownsampledWindows``), shared by the
            sources; none where absent.
    """

    def __init__(
        self,
        data: Located,
        windows: Mapping[str, WindowSource],
        config: InputConfig,
        dtype: torch.dtype,
        cache_bytes: int = 0,
    ) -> None:
        shapes = {source: rows.shape for source, rows in data.sources.items()}
        self.size = image_size(config, shapes)
        self.widths = view_widths(config, shapes)
        self.constants: dict[str, Constants] = {}
        self._config, self._data = config, data
        self._used = tuple(dict.fromkeys(view.source for view in config.parsed_views))
        self._panels: dict[str, tuple[str, ...]] = {
            source: data.sources[source].pack.panels for source in self._used
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

    def fit(self, rows: Rows, batch_size: int, process: Process) -> None:
        """Fits constants on all of these rows, for sources whose normalisation has any.

        Rank 0 fits and tells the others, so that all hold the same bits and the
        world size changes nothing.
        """
        for source, downsampled in self._downsampled.items():
            mode, block = self._config.treatment(source)
            if mode not in FITS:
                continue
            starts = self._data.sources[source].starts[rows]
            in_file_order = rows[np.argsort(starts, kind="stable")]
            windows = partial(downsampled.stream, chunks(in_file_order, batch_size))
            n_most = self._data.sources[source].shape[1] // block[0]
            self.constants[source] = _of_first(process, partial(FITS[mode], windows), n_most)

    def normalisation(self) -> dict[str, dict[str, Any]]:
        """Source -> ``mode`` and, where fitted, ``mean`` and ``std``: numbers or lists."""
        return {
            source: {
                "mode": self._config.treatment(source).normalisation,
                **(self.constants[source].plain() if source in self.constants else {}),
            }
            for source in self._downsampled
        }

    def take_normalisation(self, stored: Mapping[str, Mapping[str, Any]]) -> None:
        """Takes the constants of a fold that was trained, in place of fitting any.

        Args:
            stored: what ``normalisation`` gave there.

        Raises:
            TrainingError: where it is not of these sources and their modes, or lacks
                constants.
        """
        modes: dict[str, str] = {
            source: self._config.treatment(source).normalisation for source in self._downsampled
        }
        found = {source: str(told.get("mode")) for source, told in stored.items()}
        if found != modes:
            raise TrainingError(
                "a fold's normalisation must be that of its inputs",
                got=_listed(found),
                where=f"inputs of {_listed(modes)}",
            )
        try:
            self.constants = {
                source: Constants.from_plain(told)
                for source, told in stored.items()
                if self._config.treatment(source).normalisation in FITS
            }
        except (KeyError, TypeError, ValueError):
            raise TrainingError(
                "a fold's normalisation must hold the constants that were fitted",
                got=_listed({source: ", ".join(told) for source, told in stored.items()}),
            ) from None

    def check_augment(self, config: AugmentConfig) -> None:
        """Refuses an augmentation that these images do not allow.

        Raises:
            ConfigError: where panels have no counterpart, a chain has no panel or a view
                has too few columns for a mosaic.
        """
        check_panels(config, self._panels)
        if config.mosaic is not None:
            mosaic_spans(self.size[1], self.widths)

    def of(self, batches: Sequence[Rows]) -> Iterator[Tensor]:
        """(B, 1, H, W) images of one batch of rows after another."""
        return self._made(batches, [None] * len(batches))

    def _shifted(
        self, source: str, batches: Sequence[Rows], shifts_s: Sequence[Shifts] | None
    ) -> list[Rows] | None:
        if shifts_s is None:
            return None
        windows = self._data.sources[source]
        return [windows.shifted(*batch) for batch in zip(batches, shifts_s, strict=True)]

    def of_training(self, batches: Sequence[Batch]) -> Iterator[Tensor]:
        """(b, 1, H, W) augmented images of one rank's own rows."""
        plans = [batch.plan.windows for batch in batches]
        shifts = [batch.shifts_s for batch in batches if batch.shifts_s is not None]
        made = self._made([batch.needed for batch in batches], plans, shifts or None)
        for batch, image in zip(batches, made, strict=True):
            yield augment_images(image, batch.plan, len(batch.rows))

    def _made(
        self,
        batches: Sequence[Rows],
        plans: Sequence[WindowPlan | None],
        shifts_s: Sequence[Shifts] | None = None,
    ) -> Iterator[Tensor]:
        streams = [
            downsampled.stream(batches, self._shifted(source, batches, shifts_s))
            for source, downsampled in self._downsampled.items()
        ]
        for plan, windows in zip(plans, zip(*streams, strict=True), strict=True):
            downsampled = dict(zip(self._downsampled, windows, strict=True))
            if plan is not None:
                downsampled = {
                    source: augment_windows(values, plan, self._panels[source], source)
                    for source, values in downsampled.items()
                }
            image = join_views(downsampled, self._config, self.constants)
            yield image.contiguous(memory_format=torch.channels_last)


def _listed(texts: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {text}" for name, text in texts.items()) or "nothing"


def _of_first(process: Process, fit: Callable[[], Constants], n_most: int) -> Constants:
    """Rank 0's constants on every rank; it alone reads rows for them."""
    # The others do not know how many there are: places left over are NaN.
    sent = torch.full((2, n_most), torch.nan, dtype=torch.float64, device=process.device)
    if process.rank == 0:
        fitted = fit()
        for row, values in zip(sent, (fitted.mean, fitted.std), strict=True):
            found = torch.tensor(values, dtype=torch.float64).reshape(-1)
            row[: len(found)] = found
    mean, std = (row[~row.isnan()].tolist() for row in process.broadcast_from_rank0(sent).cpu())
    return Constants(*(tuple(row) if len(row) > 1 else row[0] for row in (mean, std)))
