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

CONTROLS: Final[dict[Control, str]] = {
    "permuted_votes": "how many experts vote has nothing to do with who they are",
    "independent_raters": "experts share neither an error nor a bias",
    "constant_gain": "all patients have the same gain",
    "stationary_context": "what goes on does not change in the whole recording",
}
"""Names and what each takes away."""

Controls = frozenset[Control]
NO_CONTROLS: Final[Controls] = frozenset()
