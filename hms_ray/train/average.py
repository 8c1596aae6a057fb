"""Exponential moving average of a model's weights during a stage."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hms_ray.train.process import Process


class AveragedModel:
    """A copy of a model whose parameters are the moving average of those in training.

    After step n of the stage, from 1, an average parameter is ``d a + (1 - d) p`` with
    ``d = min(decay, (1 + n) / (10 + n))``: the first steps forget the start sooner (as
    TensorFlow's ``ExponentialMovingAverage`` with a number of updates). All ranks have the same
    parameters, so also the same averages.

    Args:
        model: in training; the average starts with its parameters.
        decay: above 0 and below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._trained, self._decay, self._n = model, decay, 0
        self._model = copy.deepcopy(model).requires_grad_(False)

    def update(self) -> None:
        """Includes the parameters after one more optimiser step."""
        self._n += 1
        share = 1 - min(self._decay, (1 + self._n) / (10 + self._n))
        averages: list[Tensor] = list(self._model.parameters())
        trained: list[Tensor] = list(self._trained.parameters())
        with torch.no_grad():
            torch._foreach_lerp_(averages, trained, share)

    def for_scoring(self, process: Process) -> nn.Module:
        """The averaged parameters with rank 0's buffers of the model in training.

        Statistics of batches are averages already. The model in training has rank 0's buffers
        on all ranks afterwards.
        """
        process.broadcast_buffers(self._trained)
        for own, trained in zip(self._model.buffers(), self._trained.buffers(), strict=True):
            own.copy_(trained)
        return self._model

    def state(self) -> dict[str, Any]:
        """Number of steps and averages, not copied."""
        return {"n": self._n, "weights": self._model.state_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continues from the result of ``state``."""
        self._n = state["n"]
        self._model.load_state_dict(state["weights"])
