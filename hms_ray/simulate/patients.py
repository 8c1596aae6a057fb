"""Simulated patients: their recordings, what these show, and who judges them when."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from hms_ray.simulate.annotations import AnnotationGroup, place_groups
from hms_ray.simulate.background import draw_background
from hms_ray.simulate.options import NO_CONTROLS, Controls
from hms_ray.simulate.patient_draws import (
    Patient,
    draw_n_groups,
    draw_n_rows,
    draw_patient,
    draw_states,
    draw_tiers,
)
from hms_ray.simulate.plan import RecordingPlan, Repertoire, plan_recording
from hms_ray.simulate.profiles import MAX_LABELS, Profile, State
from hms_ray.simulate.raters import EXPERT_TIERS, N_FEATURES, draw_total, draw_votes, expert_tiers


@dataclass(frozen=True)
class JudgedRecording:
    """One recording without its signals, and its votes.

    Attributes:
        plan: what happens and what experts see.
        states: the state around each EEG.
        tiers: (n_groups,) position in ``raters.EXPERT_TIERS`` of the experts of each group.
        votes: (n_groups, 6) int64.
    """

    plan: RecordingPlan
    states: tuple[State, ...]
    tiers: NDArray[np.int64]
    votes: NDArray[np.int64]


@dataclass(frozen=True)
class Streams:
    """A patient's own random generators, one per part that may change alone.

    Attributes:
        plan: the recordings, what they show, and the annotation groups.
        background: the background activity.
        votes: numbers of votes, and votes.
    """

    plan: np.random.Generator
    background: np.random.Generator
    votes: np.random.Generator


@dataclass(frozen=True)
class _Shown:
    """The states of one recording by EEG, and its tiers by EEG and group."""

    states: tuple[State, ...]
    tiers: tuple[tuple[int, ...], ...]


def plan_patient(
    streams: Streams,
    profile: Profile,
    controls: Controls = NO_CONTROLS,
    *,
    single: bool = False,
) -> list[JudgedRecording]:
    """Plan all recordings of one patient, without signals.

    With ``single``, one recording with one EEG and one label row, as in the test set.
    """
    patient = draw_patient(profile, streams.plan)
    if single:
        patient = replace(patient, eegs=(1,))
    background = draw_background(streams.background)
    if "constant_gain" in controls:
        background = replace(background, gain=1.0)
    lasting = streams.votes.standard_normal((len(EXPERT_TIERS), N_FEATURES))
    repertoire = Repertoire(streams.plan)
    judged = []
    for shown in _draw_shown(profile, patient, controls, streams.plan, single=single):
        groups = (
            (AnnotationGroup(0, (0,), 0),)
            if single
            else _place_groups(profile, shown, streams.plan)
        )
        plan = plan_recording(
            groups,
            shown.states,
            background,
            repertoire,
            streams.plan,
            streams.background,
            stationary="stationary_context" in controls,
        )
        tiers = list(chain.from_iterable(shown.tiers))
        votes = _votes(plan, tiers, controls, lasting, streams.votes)
        judged.append(JudgedRecording(plan, shown.states, np.array(tiers), votes))
    return judged


def _draw_shown(
    profile: Profile,
    patient: Patient,
    controls: Controls,
    rng: np.random.Generator,
    *,
    single: bool,
) -> list[_Shown]:
    """Draw the states and tiers of each recording."""
    states = [draw_states(profile, patient, n_eegs, rng) for n_eegs in patient.eegs]
    if "stationary_context" in controls:
        states = [recording[:1] * len(recording) for recording in states]
    n_groups = [
        [1 if single else draw_n_groups(profile, patient, rng) for _ in range(n_eegs)]
        for n_eegs in patient.eegs
    ]
    of_groups = [
        state
        for recording, counts in zip(states, n_groups, strict=True)
        for state, count in zip(recording, counts, strict=True)
        for _ in range(count)
    ]
    tiers = iter(draw_tiers(patient, of_groups, rng))
    return [
        _Shown(recording, tuple(tuple(next(tiers) for _ in range(count)) for count in counts))
        for recording, counts in zip(states, n_groups, strict=True)
    ]


def _place_groups(
    profile: Profile, shown: _Shown, rng: np.random.Generator
) -> tuple[AnnotationGroup, ...]:
    """Draw the annotation groups of one recording."""
    n_rows = []
    for state, tiers in zip(shown.states, shown.tiers, strict=True):
        counts: list[int] = []
        for position, tier in enumerate(tiers):
            room = MAX_LABELS - sum(counts) - (len(tiers) - 1 - position)
            counts.append(min(draw_n_rows(profile, tier, state, rng), room))
        n_rows.append(counts)
    return place_groups(n_rows, profile.longest_s, profile.largest_gap_s, rng)


def _votes(
    plan: RecordingPlan,
    tiers: list[int],
    controls: Controls,
    lasting: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    experts = expert_tiers(controls)
    votes = []
    for group, features, tier in zip(plan.groups, plan.features, tiers, strict=True):
        # With permuted votes, the number of votes does not depend on who voted.
        counted = None if "permuted_votes" in controls else experts[tier]
        total = draw_total(counted, len(group.offsets_s), rng)
        votes.append(draw_votes(features, experts[tier], total, lasting[tier], rng))
    return np.array(votes)
