"""Flips of all rows of a batch, for predictions that are averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hms_ray.augment.draws import AUGMENTATIONS
from hms_ray.augment.windows import WindowPlan, check_panels, plan_windows
from hms_ray.config.prediction import PredictionConfig, RowVariant
from hms_ray.errors import ConfigError


def flips_of(variant: RowVariant, n_rows: int) -> WindowPlan | None:
    """The plan that applies a variant's flips to each of ``n_rows`` rows; None without flips."""
    # With shares of 0 and 1, no draw has an effect.
    draws = {kind: np.random.default_rng(0) for kind in AUGMENTATIONS}
    return plan_windows(n_rows, variant.augment, draws)


def check_flips(config: PredictionConfig, panels: Mapping[str, Sequence[str]]) -> None:
    """Checks that panels allow the flips of predictions; see ``check_panels``.

    Raises:
        ConfigError: if a flip lacks a counterpart.
    """
    try:
        check_panels(RowVariant(config.flips).augment, panels)
    except ConfigError as error:
        raise ConfigError(
            f"prediction.flips: {error.rule}",
            got=error.got,
            where=error.where,
            fix="Remove it from prediction.flips.",
        ) from None
