"""One simulated recording: when experts looked, what went on, what they voted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.schema import (
    EEG_RATE_HZ,
    EEG_WINDOW_S,
    ELECTRODES,
    SPECTROGRAM_WINDOW_S,
)
from hms_ray.signal.spectrogram import (
    EEG_START_IN_SPECTROGRAM_S,
    FIRST_WINDOW_LEAD_S,
    competition_spectrogram,
)
from hms_ray.simulate.artefacts import add_artefacts, draw_gaps, heart
from hms_ray.simulate.background import (
    BIPOLAR_SD_UV,
    RESTS,
    Background,
    at_rest,
    background_signal,
)
from hms_ray.simulate.noise import CONTROL_HZ
from hms_ray.simulate.patterns import Episode, Kind, Pattern, add_episode, draw_pattern
from hms_ray.simulate.timeline import (
    Stretch,
    judged_points,
    seizure_episodes,
    steady_episode,
)

State = Kind | None
"""The kind of pattern that goes on; None: nothing but the background."""

_RESTS_WITH_PATTERN: Final = (0.7, 0.05, 0.2, 0.05, 0.0)
_RESTS_WITHOUT: Final = (0.2, 0.3, 0.25, 0.15, 0.1)
_CHANGE_SHARE: Final = 0.15
"""Share of the states that begin or end within the ten minutes of a label."""
_UNSEEN: Final = -3.0
"""Visibility where there is no pattern."""
# Experts' sense of a pattern: visible where it is twice the background's peak to peak,
# less so where it is small, fills little of the ten seconds, or is irregular.
_PEAKS_PER_SD: Final = 4.0
_REFERENCE_UV: Final = 80.0


@dataclass(frozen=True)
class Looks:
    """The label rows of one EEG that were judged together and share their votes.

    Attributes:
        eeg: which EEG of the recording, from 0.
        offsets_s: even, ascending; seconds from the EEG's start to each label's window.
        spectrogram_start_s: the spectrogram offset of the EEG's first label row.
    """

    eeg: int
    offsets_s: tuple[int, ...]
    spectrogram_start_s: int

    @property
    def moment_s(self) -> float:
        """The middle of what was judged, in seconds of recording time."""
        offset = self.spectrogram_start_s + (self.offsets_s[0] + self.offsets_s[-1]) / 2
        return offset + SPECTROGRAM_WINDOW_S / 2 + FIRST_WINDOW_LEAD_S


@dataclass(frozen=True)
class Recording:
    """What one recording consists of.

    Recording time starts one second before spectrogram time.

    Attributes:
        spectrogram: (n_rows, 400) float32, as a spectrogram file holds it.
        eegs: one (n_samples, 20) float32 array an EEG file, microvolts.
        looks: the judged moments, by EEG and offset.
        features: (n_looks, 5) float64, what experts see there, see ``raters.FEATURES``.
    """

    spectrogram: NDArray[np.float32]
    eegs: tuple[NDArray[np.float32], ...]
    looks: tuple[Looks, ...]
    features: NDArray[np.float64]


def simulate_recording(
    looks: tuple[Looks, ...],
    states: tuple[State, ...],
    background: Background,
    rng: np.random.Generator,
) -> Recording:
    """Simulate one recording.

    Args:
        looks: the judged moments, by EEG and offset.
        states: what goes on around each EEG.
        background: the patient's ongoing activity.
        rng: source of randomness.
    """
    length_s = _length_s(looks)
    n_samples = length_s * EEG_RATE_HZ
    rests = _RESTS_WITHOUT if states[0] is None else _RESTS_WITH_PATTERN
    rest = RESTS[int(rng.choice(len(RESTS), p=rests))]
    ongoing = at_rest(background, rest, rng)
    envelope = np.ones(length_s * CONTROL_HZ)
    episodes = _episodes(looks, states, envelope, rng)
    signal = background_signal(ongoing, envelope, n_samples, rng)
    for episode in episodes:
        add_episode(signal, episode, background.gain, rng)
    add_artefacts(signal, awake=rest == "awake", rng=rng)
    eeg = _stored(signal, rng)
    features = np.array([_features(look.moment_s, episodes, ongoing, envelope) for look in looks])
    return Recording(competition_spectrogram(eeg), _cut(eeg, looks), looks, features)


def _length_s(looks: tuple[Looks, ...]) -> int:
    last = max(look.spectrogram_start_s + look.offsets_s[-1] for look in looks)
    return last + SPECTROGRAM_WINDOW_S + 2 * FIRST_WINDOW_LEAD_S


def _episodes(
    looks: tuple[Looks, ...],
    states: tuple[State, ...],
    envelope: NDArray[np.float64],
    rng: np.random.Generator,
) -> list[Episode]:
    """Patterns of all states; equal neighbouring states are one."""
    length_s = len(envelope) / CONTROL_HZ
    shown = [[look.moment_s for look in looks if look.eeg == eeg] for eeg in range(len(states))]
    episodes: list[Episode] = []
    first = 0
    start = 0.0
    for eeg, state in enumerate(states):
        last = eeg + 1 == len(states)
        if not last and states[eeg + 1] == state:
            continue
        end = length_s if last else (shown[eeg][-1] + shown[eeg + 1][0]) / 2
        moments = [moment for group in shown[first : eeg + 1] for moment in group]
        stretch = _shortened((start, end), moments, rng)
        episodes += _state_episodes(state, stretch, moments, envelope, rng)
        first, start = eeg + 1, end
    return episodes


def _shortened(stretch: Stretch, moments: list[float], rng: np.random.Generator) -> Stretch:
    """A state that begins or ends minutes or less from the moments shown."""
    start, end = stretch
    if rng.random() < _CHANGE_SHARE:
        if rng.random() < 0.5:
            start = max(start, moments[0] - rng.uniform(20, 200))
        else:
            end = min(end, moments[-1] + rng.uniform(20, 200))
    return start, end


def _state_episodes(
    state: State,
    stretch: Stretch,
    moments: list[float],
    envelope: NDArray[np.float64],
    rng: np.random.Generator,
) -> list[Episode]:
    if state == "Seizure":
        pattern = draw_pattern(state, rng)
        return seizure_episodes(pattern, stretch, moments, envelope, rng)
    if state is not None:
        return [steady_episode(draw_pattern(state, rng), stretch, moments, rng)]
    chance = rng.random()
    if chance < 0.25:
        return [steady_episode(draw_pattern("mimic", rng), stretch, moments, rng)]
    if chance < 0.35:  # too weak for most experts
        kinds: tuple[Kind, ...] = ("LPD", "GPD", "LRDA", "GRDA")
        pattern = draw_pattern(kinds[int(rng.integers(len(kinds)))], rng)
        weak = replace(pattern, amplitude_uv=pattern.amplitude_uv * float(rng.uniform(0.15, 0.4)))
        return [steady_episode(weak, stretch, moments, rng)]
    return []


def _stored(signal: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """All twenty channels as a file holds them: sample by sample, to 0.01 microvolts."""
    order = list(ELECTRODES)
    eeg = np.empty((signal.shape[1], len(order)), np.float32)
    eeg[:, order.index("EKG")] = heart(signal, rng)
    eeg[:, [position for position, name in enumerate(order) if name != "EKG"]] = signal.T
    np.round(eeg, 2, out=eeg)
    for gap in draw_gaps(len(eeg), rng):
        eeg[gap] = np.nan
    return eeg


def _cut(eeg: NDArray[np.float32], looks: tuple[Looks, ...]) -> tuple[NDArray[np.float32], ...]:
    """The part of the recording that each EEG file holds."""
    parts = []
    for number in sorted({look.eeg for look in looks}):
        own = [look for look in looks if look.eeg == number]
        start_s = own[0].spectrogram_start_s + EEG_START_IN_SPECTROGRAM_S + FIRST_WINDOW_LEAD_S
        stop_s = start_s + own[-1].offsets_s[-1] + EEG_WINDOW_S
        parts.append(eeg[start_s * EEG_RATE_HZ : stop_s * EEG_RATE_HZ])
    return tuple(parts)


def _features(
    moment_s: float,
    episodes: list[Episode],
    background: Background,
    envelope: NDArray[np.float64],
) -> NDArray[np.float64]:
    """What experts see in the ten seconds around a moment, in ``raters.FEATURES`` order."""
    judged = judged_points(moment_s, len(envelope))
    noise_sd = BIPOLAR_SD_UV * float(envelope[judged].mean())
    best = np.array([_UNSEEN, 0.0, 0.0, 0.0, 0.0])
    for episode in episodes:
        begin, end = max(judged.start, episode.start), min(judged.stop, episode.stop)
        if begin >= end:
            continue
        inside = slice(begin - episode.start, end - episode.start)
        strength = episode.strength[inside]
        on = strength > 0.1
        if not on.any():
            continue
        prevalence = float(on.sum()) / (judged.stop - judged.start)
        amplitude = episode.pattern.amplitude_uv * float(strength[on].mean())
        visibility = _visibility(
            amplitude, amplitude * background.gain, noise_sd, prevalence, episode.pattern
        )
        if visibility > best[0]:
            rate = float(np.log(episode.frequency_hz[inside][on]).mean())
            asymmetry = float(episode.asymmetry[inside][on].mean())
            pattern = episode.pattern
            best = np.array([visibility, pattern.evolution, rate, pattern.sharpness, asymmetry])
    return best


def _visibility(
    amplitude: float, scalp_uv: float, noise_sd: float, prevalence: float, pattern: Pattern
) -> float:
    """How clearly a pattern stands out; 0 is where half of the experts see it."""
    stands_out = np.log(amplitude / (_PEAKS_PER_SD * noise_sd))
    size = 0.3 * np.log(scalp_uv / _REFERENCE_UV)
    fills = 0.7 * np.log(prevalence + 0.15)
    irregular = 10.0 * max(0.0, pattern.jitter - 0.2)
    return float(max(_UNSEEN, stands_out + size + fills - irregular))
