"""What one can ask of the simulator: profiles and negative controls.

A negative control is simulated data from which one cause has been taken away: what a
technique gains must vanish where the cause of its gain is gone.
"""

from __future__ import annotations

from typing import Final, Literal

ProfileName = Literal["small", "competition"]
Control = Literal["permuted_votes", "independent_raters", "constant_gain", "stationary_context"]

PROFILE_NAMES: Final[dict[ProfileName, str]] = {
    "small": "few and short recordings a patient",
    "competition": "as many and as long ones as the competition's, some of hours",
}
"""Names and what they stand for."""

_USUAL_NUMBERS: Final[dict[ProfileName, tuple[int, int]]] = {
    "small": (100, 100),
    "competition": (1_950, 0),
}
"""Patients, and of these with recordings, where nothing is asked for."""

CONTROLS: Final[dict[Control, str]] = {
    "permuted_votes": "how many experts vote has nothing to do with who they are",
    "independent_raters": "experts are of one kind and share neither an error nor a bias",
    "constant_gain": "all patients have the same gain",
    "stationary_context": "what goes on does not change in the whole recording",
}
"""Names and what each takes away."""

Controls = frozenset[Control]
NO_CONTROLS: Final[Controls] = frozenset()


def asked_numbers(
    profile: ProfileName, n_patients: int | None, n_signals: int | None
) -> tuple[int, int]:
    """Numbers of patients, and of patients with recordings.

    Args:
        profile: decides what is not asked for: ``small`` has recordings of all patients,
            ``competition`` the label table of the competition's patients alone.
        n_patients: asked for, or None.
        n_signals: asked for, or None.
    """
    usual_patients, usual_signals = _USUAL_NUMBERS[profile]
    patients = usual_patients if n_patients is None else n_patients
    if n_signals is not None:
        return patients, n_signals
    return patients, patients if usual_signals else 0
