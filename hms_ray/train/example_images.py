"""Images of a trained fold for people to look at: as its model sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hms_ray.config.experiment import Experiment
from hms_ray.train.batches import FoldData, RowIndices, chunks, plan_epoch
from hms_ray.train.images import Images
from hms_ray.train.model_images import ModelImages, as_tuple
from hms_ray.train.process import Process
from hms_ray.train.stage_rows import training_rows
from hms_ray.train.windows import open_sources

Pictures = NDArray[np.float32]


@dataclass(frozen=True)
class AugmentedBatch:
    """Some images of a training batch.

    Attributes:
        images: (n, H, W) float32.
        targets: (n, 6) float64, their shares of votes.
        stage: name of the stage.
        augmented: whether the stage augments its images.
    """

    images: Pictures
    targets: NDArray[np.float64]
    stage: str
    augmented: bool


class ExampleImages:
    """Makes images of the rows of a fold on the CPU.

    Args:
        experiment: of the fold.
        data: its rows and packs.
        fold: number of the fold.
        normalisation: of the trained fold, see ``Images.normalisation``.

    Raises:
        TrainingError: if the normalisation does not match the inputs.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: FoldData,
        fold: int,
        normalisation: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._experiment, self._data, self._fold = experiment, data, fold
        self._process = Process(device=torch.device("cpu"))
        packs = {source: data.sources[source].pack for source in experiment.sources}
        windows = open_sources(packs, self._process.device)
        self._images = Images(
            data,
            windows,
            experiment.joint_input,
            torch.float32,
            branches=experiment.branch_inputs,
        )
        self._images.load_normalisation(normalisation)

    def of_rows(self, rows: RowIndices) -> Pictures:
        """(n, H, W) first channels of images of rows, without augmentation as in validation.

        Images of branches are joined side by side.
        """
        made = self._images.for_rows(chunks(rows, self._experiment.training.batch_size))
        return np.concatenate([_side_by_side(images) for images in made])

    def of_batch(self, n_images: int) -> AugmentedBatch:
        """The first images of a training batch, drawn as in training.

        It is the first batch of the first stage with an augmentation, or of the first stage.
        """
        training, data = self._experiment.training, self._data
        stages = training.resolved_stages()
        plain = type(stages[0].augment)()
        index = next((i for i, stage in enumerate(stages) if stage.augment != plain), 0)
        stage = stages[index]
        votes, targets = data.total_votes[data.train], data.targets[data.train]
        rows = data.train[training_rows(stage, votes, targets, self._fold)]
        size = self._images.joined
        path = self._fold, index, 0
        batch = plan_epoch(data, rows, training, stage, size, path, self._process)[0]
        images = _side_by_side(next(self._images.for_training([batch])))[:n_images]
        return AugmentedBatch(
            images=np.ascontiguousarray(images),
            targets=batch.targets[:n_images],
            stage=stage.name,
            augmented=stage.augment != plain,
        )


def _side_by_side(images: ModelImages) -> Pictures:
    """First channels of one or several images per row, those of lower height with zeros below."""
    pictures = [image[:, 0].numpy() for image in as_tuple(images)]
    height = max(picture.shape[1] for picture in pictures)
    return np.concatenate(
        [np.pad(picture, ((0, 0), (0, height - picture.shape[1]), (0, 0))) for picture in pictures],
        axis=2,
    )
