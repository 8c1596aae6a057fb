"""The state of a fold's training between two evaluations, and its bytes on disk."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.errors import TrainingError

Evaluated = tuple[NDArray[np.float64], dict[str, Tensor]]
"""Predictions of an evaluation, and the weights that made them."""

_FORMAT: Final = 1


@dataclass(frozen=True)
class FoldState:
    """Everything that the rest of a fold's training depends on, right after an evaluation.

    All ranks have the same weights and optimiser then, and the buffers of rank 0; all
    generators are seeded anew. So the state of rank 0 is that of the fold.

    Attributes:
        weights: parameters and buffers of the model.
        step: see ``Step.state``.
        best: score of the selected evaluation of the stage; infinity without one.
        kept: the selected evaluation, if there is one.
        history: one record per evaluation (see ``History``); the last is the position.
        normalisation: see ``FoldResult``.
        clock: see ``Clock.state``.
        saved_s: see ``FoldResult``.
    """

    weights: dict[str, Tensor]
    step: dict[str, Any]
    best: float
    kept: Evaluated | None
    history: list[dict[str, Any]]
    normalisation: dict[str, Any]
    clock: dict[str, Any]
    saved_s: float

    @property
    def next_stage(self) -> int:
        """Index of the stage that it is in."""
        return int(self.history[-1]["stage_index"])

    @property
    def epoch(self) -> float:
        """Epochs of this stage that are done, such as 1.5."""
        return float(self.history[-1]["epoch"])

    @property
    def n_steps(self) -> int:
        """Optimiser steps of all stages that are done."""
        return int(self.history[-1]["step"])


def state_bytes(state: FoldState, notes: Mapping[str, Any]) -> bytes:
    """A state as bytes, with notes of the caller: plain data."""
    content = {field.name: getattr(state, field.name) for field in fields(state)}
    if state.kept is not None:
        content["kept"] = (torch.from_numpy(state.kept[0]), state.kept[1])
    stream = io.BytesIO()
    torch.save({"format": _FORMAT, "state": content, "notes": dict(notes)}, stream)
    return stream.getvalue()


def state_from(stored: bytes) -> tuple[FoldState, dict[str, Any]]:
    """The state and the notes of ``state_bytes``; tensors are on the CPU.

    Only tensors and plain data are read, so that a file cannot run code.

    Raises:
        TrainingError: if the bytes are not those of a state.
    """
    try:
        read = torch.load(io.BytesIO(stored), map_location="cpu", weights_only=True)
        if read["format"] != _FORMAT:
            raise TrainingError(f"format {read['format']} instead of {_FORMAT}")
        content, kept = read["state"], read["state"]["kept"]
        if kept is not None:
            content["kept"] = (kept[0].numpy(), kept[1])
        state = FoldState(**content)
        # A state without a position fails here.
        _ = state.next_stage, state.epoch, state.n_steps, state.history[-1]["seconds"]
        return state, dict(read["notes"])
    except Exception as error:
        # A damaged archive fails in the unpickler, the zip reader or the storage.
        raise TrainingError(
            "a checkpoint must be readable",
            got=f"{type(error).__name__}: {error}".splitlines()[0],
            fix="Remove it; the fold is then trained from its last stage.",
        ) from None
