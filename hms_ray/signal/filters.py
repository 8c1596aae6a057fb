"""Zero-phase Butterworth filters, batched, as matrix products.

``scipy.signal.sosfiltfilt`` runs a filter forwards and backwards over a signal that is
extended at both ends, starting in the steady state of its first value. The filters here
remove constants, so after subtraction of the first value this state is zero. A run splits the
signal into blocks: one matrix product filters within blocks, a second one passes the filter
state from block to block. The result equals SciPy's up to rounding, ends included.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.competition.schema import EEG_RATE_HZ

_BLOCK: Final = 100
"""Samples per block; at this size products within and between blocks cost about the same."""

Array = NDArray[np.float64]


def high_pass(signals: Tensor, low_hz: float, order: int) -> Tensor:
    """Zero-phase Butterworth high-pass; for arguments see ``band_pass``."""
    return _both_ways(signals, (low_hz,), order)


def band_pass(signals: Tensor, low_hz: float, high_hz: float, order: int) -> Tensor:
    """Zero-phase Butterworth band-pass.

    Args:
        signals: floating point (..., n) at 200 Hz, finite, n at least 50.
        low_hz: lower edge; both runs together leave a quarter of its power.
        high_hz: upper edge, below 100.
        order: of each edge in one run; even.

    Returns:
        float32, same shape: the result of ``scipy.signal.sosfiltfilt`` with odd extension.
    """
    return _both_ways(signals, (low_hz, high_hz), order)


def _both_ways(signals: Tensor, edges_hz: tuple[float, ...], order: int) -> Tensor:
    n = signals.shape[-1]
    pad = 3 * (2 * (order * len(edges_hz) // 2) + 1)  # SciPy's: three times the coefficients
    blocks = _blocks(edges_hz, order, -(-(n + 2 * pad) // _BLOCK), str(signals.device))
    # In float64, so that a small rhythm on a large offset survives the products.
    values = signals.double()
    first, last = values[..., :1], values[..., -1:]
    before = 2 * first - values[..., 1 : pad + 1].flip(-1)
    after = 2 * last - values[..., -pad - 1 : -1].flip(-1)
    extended = torch.cat([before, values, after], -1).reshape(-1, n + 2 * pad)
    for _ in range(2):
        extended = _run(extended - extended[:, :1], blocks).flip(-1)
    return extended[:, pad : pad + n].to(torch.float32).reshape(signals.shape)


@dataclass(frozen=True)
class _Blocks:
    """Matrices (float64) of a filter over blocks of L samples, with S state variables.

    Attributes:
        n_blocks: N.
        from_input: (L, L + S), samples of a block -> its output and final state, starting
            from zero state.
        between_blocks: (N S, N S), final states of all blocks -> their initial states.
        from_state: (S, L), initial state of a block -> its contribution to the output.
    """

    n_blocks: int
    from_input: Tensor
    between_blocks: Tensor
    from_state: Tensor


def _run(signals: Tensor, blocks: _Blocks) -> Tensor:
    """Filters float64 signals (M, n) once, starting from zero state."""
    n_signals, n = signals.shape
    missing = blocks.n_blocks * _BLOCK - n
    padded = torch.nn.functional.pad(signals, (0, missing)).view(-1, _BLOCK)
    filtered = padded @ blocks.from_input
    states = filtered[:, _BLOCK:].reshape(n_signals, -1) @ blocks.between_blocks
    output = torch.addmm(filtered[:, :_BLOCK], states.view(len(padded), -1), blocks.from_state)
    return output.view(n_signals, -1)[:, :n]


@lru_cache(maxsize=8)
def _blocks(edges_hz: tuple[float, ...], order: int, n_blocks: int, device: str) -> _Blocks:
    # Imported late: it takes most of a second, and recipes without a filter do not need it.
    from scipy.signal import butter

    kind, edges = ("bandpass", edges_hz) if len(edges_hz) == 2 else ("highpass", edges_hz[0])
    sections: Array = butter(order, edges, kind, fs=EEG_RATE_HZ, output="sos")
    size = 2 * len(sections)
    output, last = _filtered(sections, np.eye(_BLOCK), np.zeros((_BLOCK, size)))
    from_state, onward = _filtered(sections, np.zeros((size, _BLOCK)), np.eye(size))
    carried = np.zeros((n_blocks, size, n_blocks, size))
    power = np.eye(size)
    for distance in range(1, n_blocks):
        for block in range(n_blocks - distance):
            carried[block, :, block + distance] = power
        power = power @ onward
    flat = carried.reshape(n_blocks * size, n_blocks * size)
    inputs = np.concatenate([output, last], axis=1)
    matrices = (inputs, flat, from_state)
    return _Blocks(n_blocks, *(torch.from_numpy(matrix).to(device) for matrix in matrices))


def _filtered(sections: Array, signals: Array, states: Array) -> tuple[Array, Array]:
    """Outputs (M, n) and final states (M, S) for signals (M, n) and initial states (M, S)."""
    from scipy.signal import sosfilt

    begin = states.reshape(len(states), len(sections), 2).transpose(1, 0, 2)
    output, last = sosfilt(sections, signals, axis=-1, zi=begin)
    return output, last.transpose(1, 0, 2).reshape(states.shape)
