"""Draws of a patient before any signal: recordings, states, and the tiers that judge them.

"From the table": see ``hms_ray.simulate.profiles``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hms_ray.simulate.draws import pick
from hms_ray.simulate.profiles import BOTH, ONLY_FEW, ONLY_MANY, STATES, Profile, State

_FEW, _SOME, _MANY = range(3)
_PATIENT_EEGS: Final = 0.4
"""Deviation between patients of the log number of further EEGs in a recording."""
_MANY_CONCENTRATION: Final = 3.0
"""Concentration of the Beta distribution of a patient's share of groups with >= 10 votes."""
_FAITHFUL: Final = 0.96
"""Probability that a recording shows the patient's leading state."""
_SAME_STATE: Final = 0.75
"""Probability that an EEG shows the same state as the EEG before it."""
# From the table: share of groups with 4-9 votes among groups with fewer than 10. Fitted to
# it: how much more often than average a state gets ten votes or more. Patients who are
# judged by few experts only have groups with 4-9 votes on seizures alone.
_SOME_SHARE: Final = dict(zip(STATES, (0.28, 0.24, 0.16, 0.1, 0.05, 0.08), strict=True))
_SOME_SEIZURES: Final = 0.33
_MANY_STATES: Final = dict(zip(STATES, (0.2, 1.0, 1.0, 1.1, 1.0, 0.8), strict=True))
# From the table: number of groups of an EEG by kind of patient; above 3 each further group
# is about half as likely.
_GROUPS_OF_EEG: Final = (
    (0.885, 0.081, 0.014, 0.02),
    (0.846, 0.148, 0.005, 0.001),
    (0.985, 0.015, 0.0, 0.0),
)


@dataclass(frozen=True)
class Patient:
    """The draws of a patient before any signal.

    Attributes:
        eegs: number of EEGs of each recording.
        kind: ``BOTH``, ``ONLY_FEW`` or ``ONLY_MANY``.
        many: share of groups with ten votes or more, if the kind is ``BOTH``.
        leading: the state that most recordings show.
    """

    eegs: tuple[int, ...]
    kind: int
    many: float
    leading: State


def draw_patient(profile: Profile, rng: np.random.Generator) -> Patient:
    """Draw a patient of a profile."""
    size = profile.sizes[pick([size.share for size in profile.sizes], rng)]
    low, high = size.recordings
    if size.scale is None:
        n_recordings = int(rng.integers(low, high + 1))
    else:
        n_recordings = min(high, low + int(rng.exponential(size.scale)))
    middle, spread = size.more_eegs
    middle += _PATIENT_EEGS * float(rng.standard_normal())
    more = np.exp(middle + spread * rng.standard_normal(n_recordings)).astype(int)
    kind = pick(size.kinds, rng)
    states = list(size.states)
    if kind == ONLY_MANY:
        states[0] *= _MANY_STATES["Seizure"]
    a = size.many * _MANY_CONCENTRATION
    return Patient(
        tuple(np.minimum(1 + more, profile.max_eegs).tolist()),
        kind,
        float(rng.beta(a, _MANY_CONCENTRATION - a)),
        STATES[pick(states, rng)],
    )


def draw_states(
    profile: Profile, patient: Patient, n_eegs: int, rng: np.random.Generator
) -> tuple[State, ...]:
    """Draw the state around each EEG of one recording."""
    n = len(patient.eegs)
    shares = next(s.states for s in profile.sizes if s.recordings[0] <= n <= s.recordings[1])
    states: list[State] = []
    for eeg in range(n_eegs):
        if eeg and rng.random() < _SAME_STATE:
            states.append(states[-1])
        elif rng.random() < _FAITHFUL:
            states.append(patient.leading)
        else:
            states.append(STATES[pick(shares, rng)])
    return tuple(states)


def draw_n_groups(profile: Profile, patient: Patient, rng: np.random.Generator) -> int:
    """Draw the number of annotation groups of an EEG."""
    n_groups = 1 + pick(_GROUPS_OF_EEG[patient.kind], rng)
    if n_groups == len(_GROUPS_OF_EEG[patient.kind]):
        n_groups += int(rng.geometric(0.4)) - 1
    return min(n_groups, profile.max_groups)


def draw_tiers(patient: Patient, states: Sequence[State], rng: np.random.Generator) -> list[int]:
    """Draw the tier that judges each annotation group, as a position in ``raters.EXPERT_TIERS``.

    ``states`` are what the groups show.
    """
    tiers = [_draw_tier(patient, state, rng) for state in states]
    if patient.kind == BOTH and len(tiers) > 1:
        odd = int(rng.integers(len(tiers)))
        if all(tier == _MANY for tier in tiers):
            tiers[odd] = _FEW
        elif all(tier != _MANY for tier in tiers):
            tiers[odd] = _MANY
    return tiers


def _draw_tier(patient: Patient, state: State, rng: np.random.Generator) -> int:
    if patient.kind == ONLY_MANY:
        return _MANY
    seizure = state == "Seizure"
    if patient.kind == ONLY_FEW:
        return _SOME if seizure and rng.random() < _SOME_SEIZURES else _FEW
    if rng.random() < patient.many * _MANY_STATES[state]:
        return _MANY
    return _SOME if rng.random() < _SOME_SHARE[state] else _FEW


# From the table, by tier and state: share of groups with one label row; mean and deviation
# of the log number of further label rows.
_Length = tuple[float, float, float]
_N_ROWS: Final[tuple[dict[State, _Length], ...]] = (
    {
        "Seizure": (0.21, 1.52, 0.91),
        "LPD": (0.59, 1.24, 0.93),
        "GPD": (0.67, 1.37, 1.12),
        "LRDA": (0.31, 2.3, 1.2),
        "GRDA": (0.25, 1.85, 1.25),
        None: (0.73, 0.79, 0.70),
    },
    {
        "Seizure": (0.43, 0.51, 0.55),
        "LPD": (0.13, 1.22, 0.83),
        "GPD": (0.08, 1.51, 1.03),
        "LRDA": (0.03, 2.13, 0.82),
        "GRDA": (0.13, 1.40, 0.85),
        None: (0.21, 0.90, 0.72),
    },
    {
        "Seizure": (0.51, 0.59, 0.63),
        "LPD": (0.12, 1.40, 0.81),
        "GPD": (0.09, 1.71, 1.25),
        "LRDA": (0.07, 2.17, 1.20),
        "GRDA": (0.09, 1.72, 1.22),
        None: (0.28, 0.87, 0.70),
    },
)


def draw_n_rows(profile: Profile, tier: int, state: State, rng: np.random.Generator) -> int:
    """Draw the number of label rows of a group."""
    single, middle, spread = _N_ROWS[tier][state]
    if rng.random() < single:
        return 1
    further = round(float(np.exp(middle + spread * rng.standard_normal())))
    return min(1 + max(1, further), profile.max_rows)
