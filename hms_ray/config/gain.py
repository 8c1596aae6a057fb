"""Settings of a search by ``metric: blend_gain``."""

from __future__ import annotations

from typing import Literal

from hms_ray.config.eeg_recipes import Count, Frozen

Objective = Literal["kl_all", "kl_4", "kl_10"]


class GainConfig(Frozen):
    """The reference blend against which ``metric: blend_gain`` measures trials."""

    rows: Objective = "kl_10"
    """Score whose rows count for gains, references and blends of the study."""
    reference: str | None = None
    """First reference: ``STUDY/blend``, or the folder of another blend of the same rows and
    folds. Default: the first finished trial alone."""
    renew_every: Count = 10
    """Finished trials after which a new reference is fitted. Each has an Optuna study of its
    own, with the values of all earlier trials computed anew."""
