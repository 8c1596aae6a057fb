"""Gap policies of signals."""

import numpy as np
import pytest
import torch

from hms_ray.config.eeg_recipes import Gaps
from hms_ray.signal.gaps import fill_gaps

NAN = float("nan")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("mean", [2.0, 1.0, 2.0, 2.0, 3.0, 2.0]),
        ("interpolate", [1.0, 1.0, 5 / 3, 7 / 3, 3.0, 3.0]),
        ("zero", [0.0, 1.0, 0.0, 0.0, 3.0, 0.0]),
    ],
)
def test_gap_policies(policy: Gaps, expected: list[float]) -> None:
    signals = torch.tensor([[NAN, 1.0, NAN, NAN, 3.0, NAN], [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]])
    filled = fill_gaps(signals, policy)
    torch.testing.assert_close(filled[0], torch.tensor(expected))
    assert torch.equal(filled[1], signals[1])
    assert bool(signals[0, 0].isnan()), "the input must stay as it is"


@pytest.mark.parametrize("policy", ["mean", "interpolate", "zero"])
def test_signal_without_values_becomes_zeros(policy: Gaps) -> None:
    signals = torch.stack([torch.full((5,), NAN), torch.arange(5.0)])
    filled = fill_gaps(signals, policy)
    assert torch.equal(filled, torch.stack([torch.zeros(5), torch.arange(5.0)]))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 3e38, -2e12])
def test_infinite_and_huge_values_are_gaps(value: float) -> None:
    filled = fill_gaps(torch.tensor([2.0, value, 4.0]), "interpolate")
    assert filled.tolist() == [2.0, 3.0, 4.0]


def test_signals_without_gaps_are_not_copied() -> None:
    signals = torch.tensor([1e12, -1e12, 0.0])
    assert fill_gaps(signals, "mean") is signals


def test_interpolation_equals_numpy() -> None:
    rng = np.random.default_rng(0)
    signals = rng.normal(size=(7, 300)).astype(np.float32)
    signals[rng.random(signals.shape) < 0.6] = np.nan
    filled = fill_gaps(torch.from_numpy(signals).view(7, 1, 300), "interpolate").numpy()[:, 0]
    for got, signal in zip(filled, signals, strict=True):
        known = np.flatnonzero(~np.isnan(signal))
        expected = np.interp(np.arange(300), known, signal[known])
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_mean_is_exact_on_a_large_offset() -> None:
    signals = torch.full((1, 10_001), 30_000.25)
    signals[0, 5_000] = NAN
    assert fill_gaps(signals, "mean")[0, 5_000].item() == 30_000.25
