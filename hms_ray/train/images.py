"""Images of rows, made on the device from the windows of one or more sources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hms_ray.augment.mosaic import mosaic_spans
from hms_ray.augment.plan import augment_images
from hms_ray.augment.windows import WindowPlan, augment_windows, check_panels
from hms_ray.config_augment import AugmentConfig
from hms_ray.config_input import InputConfig
from hms_ray.normalise import Constants, fit_global
from hms_ray.train.batches import Batch, FoldData, Rows, chunks
from hms_ray.train.pooled import PooledWindows
from hms_ray.train.process import Process
from hms_ray.train.windows import WindowSource
from hms_ray.views import image_size, join_views, view_widths


class Images:
    """Images of rows, made on the device.

    Args:
        data: the fold.
        windows: source -> its windows, for every source of the views.
        config: views, normalisation, pool and size.
        dtype: of the images: float32 or float64.
        keep_bytes: memory for pooled windows (see ``PooledWindows``), shared by the
            sources; none where absent.
    """

    def __init__(
        self,
        data: FoldData,
        windows: Mapping[str, WindowSource],
        config: InputConfig,
        dtype: torch.dtype,
        keep_bytes: int = 0,
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
        self._pooled = {}
        for source in self._used:
            pool = config.treatment(source).pool
            panels, frequencies, times = shapes[source]
            n_bytes = panels * frequencies * times // (pool[0] * pool[1]) * dtype.itemsize
            self._pooled[source] = PooledWindows(
                windows[source],
                data.sources[source].starts,
                pool,
                dtype,
                capacity=keep_bytes // len(self._used) // n_bytes,
            )

    def fit(self, rows: Rows, batch_size: int, process: Process) -> None:
        """Fits global normalisation on all of these rows, for sources that ask for it.

        Rank 0 fits and tells the others, so that all hold the same bits and the
        world size changes nothing.
        """
        for source, pooled in self._pooled.items():
            if self._config.treatment(source).normalisation != "global":
                continue
            mean_std = torch.zeros(2, dtype=torch.float64, device=process.device)
            if process.rank == 0:
                starts = self._data.sources[source].starts[rows]
                in_file_order = rows[np.argsort(starts, kind="stable")]
                fitted = fit_global(pooled.stream(chunks(in_file_order, batch_size)))
                mean_std.copy_(torch.tensor([fitted.mean, fitted.std], dtype=torch.float64))
            mean, std = process.from_first(mean_std).tolist()
            self.constants[source] = Constants(mean=mean, std=std)

    def normalisation(self) -> dict[str, dict[str, Any]]:
        """Source -> ``mode`` and, where fitted, ``mean`` and ``std``; plain data."""
        return {
            source: {
                "mode": self._config.treatment(source).normalisation,
                **(asdict(self.constants[source]) if source in self.constants else {}),
            }
            for source in self._pooled
        }

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

    def of_training(self, batches: Sequence[Batch]) -> Iterator[Tensor]:
        """(b, 1, H, W) augmented images of one rank's own rows."""
        plans = [batch.plan.windows for batch in batches]
        made = self._made([batch.needed for batch in batches], plans)
        for batch, image in zip(batches, made, strict=True):
            yield augment_images(image, batch.plan, len(batch.rows))

    def _made(
        self, batches: Sequence[Rows], plans: Sequence[WindowPlan | None]
    ) -> Iterator[Tensor]:
        streams = [pooled.stream(batches) for pooled in self._pooled.values()]
        for plan, windows in zip(plans, zip(*streams, strict=True), strict=True):
            pooled = dict(zip(self._pooled, windows, strict=True))
            if plan is not None:
                pooled = {
                    source: augment_windows(values, plan, self._panels[source], source)
                    for source, values in pooled.items()
                }
            image = join_views(pooled, self._config, self.constants)
            yield image.contiguous(memory_format=torch.channels_last)
