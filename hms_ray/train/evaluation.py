"""The evaluation of a fold's model: predictions of all validation rows, and their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from hms_ray.competition.schema import N_CLASSES
from hms_ray.config.prediction import RowVariant
from hms_ray.config.training import ResolvedStage
from hms_ray.evaluate.metric import OBJECTIVES, kl_divergence, kl_report
from hms_ray.train.batches import FoldData, RowIndices
from hms_ray.train.images import Images
from hms_ray.train.process import Process
from hms_ray.train.score import Precision, check_finite, predict_rows


class Evaluation:
    """Predicts the validation rows of a fold.

    Args:
        data: rows and packs.
        images: makes the images of rows.
        batch_size: rows per batch, over all ranks.
        precision: of the forward passes.
        process: this rank of the worker group.
        variants: of each row, whose predictions are averaged.
    """

    def __init__(
        self,
        data: FoldData,
        images: Images,
        batch_size: int,
        precision: Precision,
        process: Process,
        variants: Sequence[RowVariant],
    ) -> None:
        self._data, self._images, self._batch_size = data, images, batch_size
        self._precision, self._process, self._variants = precision, process, variants

    def __call__(
        self, model: nn.Module, where: str
    ) -> tuple[NDArray[np.float64], dict[str, float | None]]:
        """Probabilities (n, 6) of the validation rows, and their scores; None without rows.

        Args:
            model: on the device of the process.
            where: stage, epoch and step, for messages.

        Raises:
            TrainingError: on all ranks, if a prediction is not finite.
        """
        data, valid = self._data, self._data.valid
        if not len(valid):
            # The buffers of rank 0 are those of the fold after each evaluation.
            self._process.broadcast_buffers(model)
            return np.zeros((0, N_CLASSES)), dict.fromkeys(OBJECTIVES)
        made_with = self._batch_size, self._precision, self._process
        table = predict_rows(model, self._images, valid, *made_with, self._variants)
        check_finite(table, where, self._precision)
        return table, kl_report(data.targets[valid], table, data.total_votes[valid])

    def criterion(
        self,
        stage: ResolvedStage,
        counted: RowIndices,
        table: NDArray[np.float64],
        scores: Mapping[str, float | None],
    ) -> float | None:
        """The score that chooses the best evaluation of a stage, if it chooses one.

        Args:
            stage: its criterion decides.
            counted: positions of the rows of the stage among the validation rows.
            table: probabilities (n, 6) of the validation rows.
            scores: of the table.
        """
        if stage.criterion == "stage_rows":
            return kl_divergence(self._data.targets[self._data.valid][counted], table[counted])
        return None if stage.criterion is None else scores[stage.criterion]
