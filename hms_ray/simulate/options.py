"""Options of the simulator: profiles and negative controls.

A negative control is simulated data without one cause: a technique's gain must vanish if its
cause is removed.
"""

from __future__ import annotations

from typing import Final, Literal

ProfileName = Literal["small", "competition"]
Control = Literal["permuted_votes", "independent_raters", "constant_gain", "stationary_context"]

PROFILE_NAMES: Final[dict[ProfileName, str]] = {
    "small": "few and short recordings per patient",
    "competition": "as many and as long recordings as in the competition, some of hours",
}
"""Profile -> description."""

_DEFAULT_NUMBERS: Final[dict[ProfileName, tuple[int, int]]] = {
    "small": (100, 100),
    "competition": (1_950, 0),
}
"""Profile -> default numbers of patients, and of patients with recordings."""

CONTROLS: Final[dict[Control, str]] = {
    "permuted_votes": "the number of votes does not depend on who votes",
    "independent_raters": "all experts are of one kind and share no error and no bias",
    "constant_gain": "all patients have the same gain",
    "stationary_context": "the state does not change within a recording",
}
"""Negative control -> what it changes."""

Controls = frozenset[Control]
NO_CONTROLS: Final[Controls] = frozenset()


def patient_numbers(
    profile: ProfileName, n_patients: int | None, n_signals: int | None
) -> tuple[int, int]:
    """Number of patients, and of patients with recordings.

    Args:
        profile: sets the defaults: ``small`` has 100 patients, all with recordings;
            ``competition`` has as many patients as the competition, and only labels.
        n_patients: default: by profile.
        n_signals: default: by profile.
    """
    default_patients, default_signals = _DEFAULT_NUMBERS[profile]
    patients = default_patients if n_patients is None else n_patients
    if n_signals is not None:
        return patients, n_signals
    return patients, patients if default_signals else 0
