"""Simulated recordings compared with real ones, by the figures of the benchmark."""

from pathlib import Path

import pytest

from hms_ray.simulate.folder import simulate_folder
from tests.benchmarks.simulator_signals import competition_folder, signal_lines

pytestmark = [pytest.mark.real, pytest.mark.slow]

# The mean of sixteen patients varies too much for these; the benchmark checks them on more.
NEED_MANY_PATIENTS = ("image: mean", "share")


def test_simulated_recordings_resemble_the_real_ones(real_data: Path, tmp_path: Path) -> None:
    made = simulate_folder(tmp_path / "data", 16, seed=1)
    lines = signal_lines(competition_folder(real_data), made)
    assert len(lines) > 30
    off = [line for line in lines if line.verdict == "OFF"]
    assert not [line for line in off if not line.name.endswith(NEED_MANY_PATIENTS)]


def test_real_recordings_are_within_their_own_bounds(real_data: Path) -> None:
    real = competition_folder(real_data)
    for line in signal_lines(real, real):
        # Except for the bounds that come from the full data.
        assert line.simulated == line.real
        assert line.verdict != "OFF" or line.name == "log power of an image: mean"
