"""The signals of one simulated recording, made from its plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.schema import EEG_RATE_HZ, EEG_WINDOW_S, ELECTRODES
from hms_ray.signal.spectrogram import (
    EEG_START_IN_SPECTROGRAM_S,
    FIRST_WINDOW_LEAD_S,
    competition_spectrogram,
)
from hms_ray.simulate.annotations import AnnotationGroup
from hms_ray.simulate.artefacts import add_artefacts, draw_gaps, heart
from hms_ray.simulate.background import background_signal
from hms_ray.simulate.noise import CONTROL_HZ
from hms_ray.simulate.patterns import add_episode
from hms_ray.simulate.plan import RecordingPlan


@dataclass(frozen=True)
class Recording:
    """The signals of one recording.

    Attributes:
        spectrogram: (n_rows, 400) float32, content of the spectrogram file.
        eegs: one (n_samples, 20) float32 array per EEG file, microvolts.
    """

    spectrogram: NDArray[np.float32]
    eegs: tuple[NDArray[np.float32], ...]


def render(
    plan: RecordingPlan, rng: np.random.Generator, electrodes: NDArray[np.int64] | None = None
) -> Recording:
    """Draw the signals of a planned recording.

    Args:
        plan: what happens.
        rng: source of randomness.
        electrodes: (19,) electrode whose signal is stored under each name of ``scalp.SCALP``.
            Default: its own.
    """
    n_samples = len(plan.envelope) // CONTROL_HZ * EEG_RATE_HZ
    signal = background_signal(plan.ongoing, plan.envelope, n_samples, rng)
    for episode in plan.episodes:
        add_episode(signal, episode, plan.ongoing.gain, rng)
    add_artefacts(signal, awake=plan.rest == "awake", rng=rng)
    eeg = _stored(signal, rng, electrodes)
    return Recording(competition_spectrogram(eeg), _cut(eeg, plan.groups))


def _stored(
    signal: NDArray[np.float32], rng: np.random.Generator, electrodes: NDArray[np.int64] | None
) -> NDArray[np.float32]:
    """All twenty channels as stored: (n_samples, 20), rounded to 0.01 microvolts."""
    order = list(ELECTRODES)
    eeg = np.empty((signal.shape[1], len(order)), np.float32)
    eeg[:, order.index("EKG")] = heart(signal, rng)
    stored = signal if electrodes is None else signal[electrodes]
    eeg[:, [position for position, name in enumerate(order) if name != "EKG"]] = stored.T
    np.round(eeg, 2, out=eeg)
    for gap in draw_gaps(len(eeg), rng):
        eeg[gap] = np.nan
    return eeg


def _cut(
    eeg: NDArray[np.float32], groups: tuple[AnnotationGroup, ...]
) -> tuple[NDArray[np.float32], ...]:
    """The part of the recording in each EEG file."""
    parts = []
    for number in sorted({group.eeg for group in groups}):
        own = [group for group in groups if group.eeg == number]
        start_s = own[0].spectrogram_start_s + EEG_START_IN_SPECTROGRAM_S + FIRST_WINDOW_LEAD_S
        stop_s = start_s + own[-1].offsets_s[-1] + EEG_WINDOW_S
        parts.append(eeg[start_s * EEG_RATE_HZ : stop_s * EEG_RATE_HZ])
    return tuple(parts)
