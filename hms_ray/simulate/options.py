"""Options of the simulator: profiles and negative controls.

A negative control is simulated data without one cause: a technique's gain must vanish if its
cause is removed.
"""

from __future__ import annotations

from typing import Final, Literal

ProfileName = Literal["small", "competition"]
Control = Literal[
    "permuted_votes",
    "independent_raters",
    "constant_gain",
    "stationary_context",
    "shuffled_montage",
]

PROFILE_NAMES: Final[dict[ProfileName, str]] = {
    "small": "few and short recordings per patient",
    "competition": "number and length of recordings as in the competition; some last hours",
}
"""Profile -> description."""

CONTROLS: Final[dict[Control, str]] = {
    "permuted_votes": "the number of votes does not depend on who votes",
    "independent_raters": "all experts belong to one group and share no error and no bias",
    "constant_gain": "all patients have the same gain",
    "stationary_context": "the state does not change within a recording",
    "shuffled_montage": "each patient's electrodes are stored under each other's names",
}
"""Negative control -> what it changes."""

Controls = frozenset[Control]
NO_CONTROLS: Final[Controls] = frozenset()


def patient_numbers(
    profile: ProfileName, n_patients: int | None, n_signals: int | None
) -> tuple[int, int]:
    """Number of patients, and of patients with recordings; None: the default of the profile.

    The default of ``small`` is 100 patients with recordings; that of ``competition`` is as
    many patients as in the competition, without recordings.
    """
    small = profile == "small"
    patients = (100 if small else 1_950) if n_patients is None else n_patients
    signals = (patients if small else 0) if n_signals is None else n_signals
    return patients, signals
