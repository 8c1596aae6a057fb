"""Zero-phase Butterworth filters, batched, as matrix products.

``scipy.signal.sosfiltfilt`` runs a filter forwards and backwards over a signal
that is extended at both ends, and starts in the steady state of its first value.
The filters here stop constants, so that state is rest once the first value is
subtracted. A run cuts the signal into blocks: within a block it is one matrix
product, and the filter's state is handed from block to block by another. The
result is scipy's up to rounding, ends included.
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
"""Samples a block: products within and between blocks then cost about the same."""

Array = NDArray[np.float64]


def high_pass(signals: Tensor, low_hz: float, order: int) -> Tensor:
    """Butterworth high-pass without a shift of phase; see ``band_pass``."""
    return _both_ways(signals, (low_hz,), order)


def band_pass(signals: Tensor, low_hz: float, high_hz: float, order: int) -> Tensor:
    """Butterworth band-pass without a shift of phase.

    Args:
        signals: floating point (..., n) at 200 Hz, finite, n of 50 or more.
        low_hz: lower edge, where both runs together leave a quarter of the power.
        high_hz: upper edge, below 100.
        order: of each edge, in one run; even.

    Returns:
        float32, the same shape: ``scipy.signal.sosfiltfilt`` with its odd extension.
    """
    return _both_ways(signals, (low_hz, high_hz), order)


def _both_ways(signals: Tensor, edges_hz: tuple[float, ...], order: int) -> Tensor:
    n = signals.shape[-1]
    pad = 3 * (2 * (order * len(edges_hz) // 2) + 1)  # scipy's: thrice the coefficients
    blocks = _blocks(edges_hz, order, -(-(n + 2 * pad) // _BLOCK), str(signals.device))
    # In float64: a small rhythm on a large offset must survive the products.
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
    """A filter over blocks, float64, L samples a block, S numbers of state.

    Attributes:
        n_blocks: N.
        inputs: (L, L + S), a block's samples -> its output from rest, its last state.
        carried: (N S, N S), all blocks' last states from rest -> the states they begin in.
        rung: (S, L), the state a block begins in -> what it adds to the output.
    """

    n_blocks: int
    inputs: Tensor
    carried: Tensor
    rung: Tensor


def _run(signals: Tensor, blocks: _Blocks) -> Tensor:
    """One run from rest over float64 signals (M, n)."""
    n_signals, n = signals.shape
    missing = blocks.n_blocks * _BLOCK - n
    padded = torch.nn.functional.pad(signals, (0, missing)).view(-1, _BLOCK)
    made = padded @ blocks.inputs
    states = made[:, _BLOCK:].reshape(n_signals, -1) @ blocks.carried
    output = torch.addmm(made[:, :_BLOCK], states.view(len(padded), -1), blocks.rung)
    return output.view(n_signals, -1)[:, :n]


@lru_cache(maxsize=8)
def _blocks(edges_hz: tuple[float, ...], order: int, n_blocks: int, device: str) -> _Blocks:
    # Late, since it takes most of a second and recipes without a filter do without it.
    from scipy.signal import butter

    kind, edges = ("bandpass", edges_hz) if len(edges_hz) == 2 else ("highpass", edges_hz[0])
    sections: Array = butter(order, edges, kind, fs=EEG_RATE_HZ, output="sos")
    size = 2 * len(sections)
    output, last = _filtered(sections, np.eye(_BLOCK), np.zeros((_BLOCK, size)))
    rung, onward = _filtered(sections, np.zeros((size, _BLOCK)), np.eye(size))
    carried = np.zeros((n_blocks, size, n_blocks, size))
    power = np.eye(size)
    for distance in range(1, n_blocks):
        for block in range(n_blocks - distance):
            carried[block, :, block + distance] = power
        power = power @ onward
    flat = carried.reshape(n_blocks * size, n_blocks * size)
    inputs = np.concatenate([output, last], axis=1)
    return _Blocks(n_blocks, *(torch.from_numpy(a).to(device) for a in (inputs, flat, rung)))


def _filtered(sections: Array, signals: Array, states: Array) -> tuple[Array, Array]:
    """Outputs (M, n) and last states (M, S) of signals (M, n) that begin in states (M, S)."""
    from scipy.signal import sosfilt

    begin = states.reshape(len(states), len(sections), 2).transpose(1, 0, 2)
    output, last = sosfilt(sections, signals, axis=-1, zi=begin)
    return output, last.transpose(1, 0, 2).reshape(states.shape)
