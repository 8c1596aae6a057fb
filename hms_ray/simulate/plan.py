"""The plan of one recording: what happens, and what experts see. No signals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.schema import SPECTROGRAM_WINDOW_S
from hms_ray.signal.spectrogram import FIRST_WINDOW_LEAD_S
from hms_ray.simulate.annotations import AnnotationGroup
from hms_ray.simulate.background import BIPOLAR_SD_UV, RESTS, Background, Rest, at_rest
from hms_ray.simulate.draws import pick
from hms_ray.simulate.noise import CONTROL_HZ
from hms_ray.simulate.patterns import Episode, Pattern, PatternKind, draw_pattern
from hms_ray.simulate.profiles import State
from hms_ray.simulate.timeline import Stretch, judged_points, seizure_episodes, steady_episode

_RESTS_WITH_PATTERN: Final = (0.7, 0.05, 0.2, 0.05, 0.0)
_RESTS_WITHOUT: Final = (0.2, 0.3, 0.25, 0.15, 0.1)
_CHANGE_SHARE: Final = 0.15
"""Share of states that begin or end within the ten minutes of a label."""
_MIMIC_SHARE: Final = 0.2
_WEAK_SHARE: Final = 0.4
"""Shares of the parts without a state that have a mimic or a weak pattern."""
_WEAK_KINDS: Final[tuple[PatternKind, ...]] = ("LPD", "GPD", "LRDA", "GRDA")
_WEAK_FACTOR: Final = (0.15, 0.7)
"""Range of the factor on the amplitude of a weak pattern."""
_TYPICAL_ROWS: Final = 5
_CLARITY_EXPONENT: Final = 0.32
_CLARITY_RANGE: Final = (0.62, 2.4)
"""Range of the factor on a pattern's amplitude: long groups of label rows were made for
clear patterns."""
_OWN_PATTERN: Final = 0.7
"""Probability that the patient's earlier pattern recurs."""
_NO_PATTERN: Final = -2.2
"""Visibility without a pattern."""
# A pattern is visible if it is as high as the background is peak to peak; less so if it is
# small, short within the ten seconds, irregular or sinusoidal.
_PEAKS_PER_SD: Final = 4.0
_REFERENCE_UV: Final = 80.0
_SINUSOID_PENALTY: Final = 1.9
"""Decrease in visibility of a sinusoid without evolution, compared with a discharge."""


@dataclass(frozen=True)
class RecordingPlan:
    """One recording without its signals.

    Recording time starts one second before spectrogram time.

    Attributes:
        groups: the annotation groups, by EEG and offset.
        rest: the brain's state without a pattern.
        ongoing: the patient's background activity in that state.
        envelope: factor on the background's amplitude, at 5 Hz.
        episodes: the patterns.
        features: (n_groups, 5) float64, what experts see; columns ``raters.FEATURES``.
    """

    groups: tuple[AnnotationGroup, ...]
    rest: Rest
    ongoing: Background
    envelope: NDArray[np.float64]
    episodes: tuple[Episode, ...]
    features: NDArray[np.float64]


class Repertoire:
    """The patterns of one patient, most of which recur."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._own: dict[PatternKind, Pattern] = {}

    def draw(self, kind: PatternKind) -> Pattern:
        """Draw the patient's own point of the region with a new amplitude, or a new point."""
        drawn = draw_pattern(kind, self._rng)
        own = self._own.setdefault(kind, drawn)
        if self._rng.random() < _OWN_PATTERN:
            return replace(own, amplitude_uv=drawn.amplitude_uv)
        return drawn


def plan_recording(
    groups: tuple[AnnotationGroup, ...],
    states: tuple[State, ...],
    background: Background,
    repertoire: Repertoire,
    rng: np.random.Generator,
    background_rng: np.random.Generator,
    *,
    stationary: bool = False,
) -> RecordingPlan:
    """Plan one recording.

    Args:
        groups: the annotation groups, by EEG and offset.
        states: the state around each EEG.
        background: the patient's background activity.
        repertoire: the patient's patterns.
        rng: source of randomness.
        background_rng: source of randomness of the background's state of rest.
        stationary: the state of the first EEG continues unchanged in the whole recording.
    """
    last_s = max(group.spectrogram_start_s + group.offsets_s[-1] for group in groups)
    length_s = last_s + SPECTROGRAM_WINDOW_S + 2 * FIRST_WINDOW_LEAD_S
    envelope = np.ones(length_s * CONTROL_HZ)
    rests = _RESTS_WITHOUT if states[0] is None else _RESTS_WITH_PATTERN
    rest = RESTS[pick(rests, rng)]
    ongoing = at_rest(background, rest, background_rng)
    if stationary:
        rows = max(len(group.offsets_s) for group in groups)
        pattern = _draw_pattern(states[0], rows, repertoire, rng)
        episodes = [] if pattern is None else [_unchanging(pattern, len(envelope))]
    else:
        episodes = _episodes(groups, states, envelope, repertoire, rng)
    features = np.array(
        [_features(group.moment_s, episodes, ongoing, envelope) for group in groups]
    )
    return RecordingPlan(groups, rest, ongoing, envelope, tuple(episodes), features)


def _episodes(
    groups: tuple[AnnotationGroup, ...],
    states: tuple[State, ...],
    envelope: NDArray[np.float64],
    repertoire: Repertoire,
    rng: np.random.Generator,
) -> list[Episode]:
    """Patterns of all states; equal consecutive states are merged."""
    length_s = len(envelope) / CONTROL_HZ
    shown = [[group.moment_s for group in groups if group.eeg == eeg] for eeg in range(len(states))]
    episodes: list[Episode] = []
    first = 0
    start = 0.0
    for eeg, state in enumerate(states):
        last = eeg + 1 == len(states)
        if not last and states[eeg + 1] == state:
            continue
        end = length_s if last else (shown[eeg][-1] + shown[eeg + 1][0]) / 2
        moments = [moment for group in shown[first : eeg + 1] for moment in group]
        rows = max(len(group.offsets_s) for group in groups if first <= group.eeg <= eeg)
        stretch = _shortened((start, end), moments, rng)
        pattern = _draw_pattern(state, rows, repertoire, rng)
        if pattern is not None and state == "Seizure":
            episodes += seizure_episodes(pattern, stretch, moments, envelope, rng)
        elif pattern is not None:
            episodes.append(steady_episode(pattern, stretch, moments, rng))
        first, start = eeg + 1, end
    return episodes


def _unchanging(pattern: Pattern, n_points: int) -> Episode:
    """One pattern in the whole recording, of constant strength, rate and field."""
    constant = np.ones(n_points)
    rate, asymmetry = pattern.frequency_hz * constant, pattern.asymmetry * constant
    return Episode(pattern, 0, rate, constant, asymmetry)


def _shortened(stretch: Stretch, moments: list[float], rng: np.random.Generator) -> Stretch:
    """Sometimes shorten a state, so that it begins or ends near the judged moments."""
    start, end = stretch
    if rng.random() < _CHANGE_SHARE:
        if rng.random() < 0.5:
            start = max(start, moments[0] - rng.uniform(20, 200))
        else:
            end = min(end, moments[-1] + rng.uniform(20, 200))
    return start, end


def _draw_pattern(
    state: State, rows: int, repertoire: Repertoire, rng: np.random.Generator
) -> Pattern | None:
    """Draw the pattern of a state; without a state a mimic, a weak pattern, or None.

    The amplitude of a state's pattern depends on the number of its label rows.
    """
    if state is not None:
        low, high = _CLARITY_RANGE
        factor = float(np.clip((rows / _TYPICAL_ROWS) ** _CLARITY_EXPONENT, low, high))
        return _scaled(repertoire.draw(state), factor)
    position = pick((_MIMIC_SHARE, _WEAK_SHARE, 1 - _MIMIC_SHARE - _WEAK_SHARE), rng)
    if position == 2:
        return None
    if position == 0:
        return repertoire.draw("mimic")
    pattern = repertoire.draw(_WEAK_KINDS[int(rng.integers(len(_WEAK_KINDS)))])
    return _scaled(pattern, float(rng.uniform(*_WEAK_FACTOR)))


def _scaled(pattern: Pattern, factor: float) -> Pattern:
    return replace(pattern, amplitude_uv=pattern.amplitude_uv * factor)


def _features(
    moment_s: float,
    episodes: list[Episode],
    background: Background,
    envelope: NDArray[np.float64],
) -> NDArray[np.float64]:
    """What experts see in the ten seconds around a moment; columns ``raters.FEATURES``."""
    judged = judged_points(moment_s, len(envelope))
    noise_sd = BIPOLAR_SD_UV * float(envelope[judged].mean())
    best = np.array([_NO_PATTERN, 0.0, 0.0, 0.0, 0.0])
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
    """How clearly a pattern stands out; at 0, half of the experts see it."""
    stands_out = np.log(amplitude / (_PEAKS_PER_SD * noise_sd))
    size = 0.3 * np.log(scalp_uv / _REFERENCE_UV)
    fills = 0.7 * np.log(prevalence + 0.15)
    irregular = 10.0 * max(0.0, pattern.jitter - 0.2)
    # Sinusoidal waves resemble slow background; sharp or evolving patterns do not.
    sinusoidal = _SINUSOID_PENALTY * (1 - max(pattern.sharpness, pattern.evolution))
    return float(max(_NO_PATTERN, stands_out + size + fills - irregular - sinusoidal))
