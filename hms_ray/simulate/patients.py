"""Simulated patients: their recordings, what these show, who judges them and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.simulate.background import draw_background
from hms_ray.simulate.raters import GROUPS, draw_total, draw_votes
from hms_ray.simulate.recording import Looks, Recording, State, simulate_recording

MAX_RECORDINGS: Final = 4
MAX_EEGS: Final = 3
"""EEGs of one recording, and so of one spectrogram."""
MAX_LABELS: Final = 128
"""Label rows of one EEG."""

_RECORDINGS: Final = (0.3, 0.4, 0.2, 0.1)
_EEGS: Final = (0.74, 0.19, 0.07)
_GROUPS_OF_EEG: Final = (0.89, 0.09, 0.02)
_ROWS_OF_GROUP: Final = {1: 0.4, 2: 0.14, 3: 0.1, 4: 0.09, 5: 0.07, 6: 0.06, 8: 0.07, 11: 0.07}
_OFFSET_STEPS_S: Final = {2: 0.6, 4: 0.25, 6: 0.1, 8: 0.05}
_STATES: Final[tuple[State, ...]] = ("Seizure", "LPD", "GPD", "LRDA", "GRDA", None)
_STATE_SHARES: Final = (0.16, 0.16, 0.13, 0.12, 0.13, 0.3)
_FAITHFUL: Final = 0.7
"""Chance that a recording shows the patient's leading state."""
_SAME_STATE: Final = 0.75
"""Chance that a later EEG of a recording shows what the one before it showed."""

# Real shares: 46% of patients have rows of both few and many votes, 45% only of few, 8% only
# of many. Second table: tiers 1-3, 4-9, >=10 of the vote groups of such patients, chosen so
# that all together the tiers get the real shares of 58%, 10% and 31%.
_PATIENT_SHARES: Final = (0.46, 0.46, 0.08)
_TIERS: Final = ((0.40, 0.09, 0.51), (0.86, 0.14, 0.0), (0.0, 0.05, 0.95))
# Seizures are 5% of the votes of rows with ten votes or more, against 23% in all.
_SEIZURE_MANY_VOTES: Final = 0.3


@dataclass(frozen=True)
class JudgedRecording:
    """One recording and its votes.

    Attributes:
        recording: signal, spectrogram and what was seen.
        tiers: (n_looks,) position in ``raters.GROUPS`` of who judged each moment.
        votes: (n_looks, 6) int64.
    """

    recording: Recording
    tiers: NDArray[np.int64]
    votes: NDArray[np.int64]


def simulate_patient(rng: np.random.Generator, *, single: bool = False) -> list[JudgedRecording]:
    """All recordings of one patient.

    Args:
        rng: the patient's own generator.
        single: one recording with one EEG and one label row, as in the test set.
    """
    background = draw_background(rng)
    leading = _draw_state(rng)
    kind = int(rng.choice(len(_PATIENT_SHARES), p=_PATIENT_SHARES))
    n_recordings = 1 if single else 1 + int(rng.choice(MAX_RECORDINGS, p=_RECORDINGS))
    judged = []
    for _ in range(n_recordings):
        looks = (Looks(0, (0,), 0),) if single else draw_looks(rng)
        states = _draw_states(looks[-1].eeg + 1, leading, rng)
        recording = simulate_recording(looks, states, background, rng)
        tiers = [_draw_tier(kind, states[look.eeg], rng) for look in looks]
        votes = [
            draw_votes(features, GROUPS[tier], draw_total(GROUPS[tier], rng), rng)
            for features, tier in zip(recording.features, tiers, strict=True)
        ]
        judged.append(JudgedRecording(recording, np.array(tiers), np.array(votes)))
    return judged


def draw_looks(rng: np.random.Generator) -> tuple[Looks, ...]:
    """When experts looked at one recording: EEGs, groups of label rows, even offsets."""
    looks: list[Looks] = []
    spectrogram_start = 0
    for eeg in range(1 + int(rng.choice(MAX_EEGS, p=_EEGS))):
        offset = 0
        for _ in range(1 + int(rng.choice(len(_GROUPS_OF_EEG), p=_GROUPS_OF_EEG))):
            offsets = offset + _draw_offsets(rng)
            looks.append(Looks(eeg, tuple(offsets.tolist()), spectrogram_start))
            offset = int(offsets[-1]) + 2 * int(rng.integers(4, 20))
        spectrogram_start += looks[-1].offsets_s[-1] + 2 * int(rng.integers(30, 100))
    return tuple(looks)


def _draw_offsets(rng: np.random.Generator) -> NDArray[np.int64]:
    """Offsets of label rows that share their votes, from 0."""
    n_rows = rng.choice(list(_ROWS_OF_GROUP), p=list(_ROWS_OF_GROUP.values()))
    steps = rng.choice(list(_OFFSET_STEPS_S), n_rows - 1, p=list(_OFFSET_STEPS_S.values()))
    return np.concatenate([[0], np.cumsum(steps, dtype=np.int64)])


def _draw_state(rng: np.random.Generator) -> State:
    return _STATES[int(rng.choice(len(_STATES), p=_STATE_SHARES))]


def _draw_states(n_eegs: int, leading: State, rng: np.random.Generator) -> tuple[State, ...]:
    states = [leading if rng.random() < _FAITHFUL else _draw_state(rng)]
    while len(states) < n_eegs:
        states.append(states[-1] if rng.random() < _SAME_STATE else _draw_state(rng))
    return tuple(states)


def _draw_tier(patient: int, state: State, rng: np.random.Generator) -> int:
    shares = np.array(_TIERS[patient])
    if state == "Seizure" and shares[0] > 0:
        shares[2] *= _SEIZURE_MANY_VOTES
    return int(rng.choice(len(shares), p=shares / shares.sum()))
