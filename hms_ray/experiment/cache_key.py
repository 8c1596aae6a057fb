"""What the cache key of a fold is computed from."""

from __future__ import annotations

from typing import Any

from hms_ray.config.experiment import Experiment, canonical
from hms_ray.dataset.prepare import Prepared
from hms_ray.experiment.placement import Placement

NUMERICS_VERSION = 1
"""Raise it by hand whenever a change of code changes the result of a fold."""


def cache_key_inputs(
    experiment: Experiment,
    prepared: Prepared,
    fold: int,
    placement: Placement,
    weights: str | None = None,
) -> dict[str, Any]:
    """Everything that can change the result of a fold, as plain data.

    Args:
        experiment: what is trained.
        prepared: rows, folds and packs.
        fold: validation fold.
        placement: where it is trained.
        weights: SHA-256 of the file of pretrained weights, if there is one.
    """
    described = canonical(experiment)
    # Rows and folds are identified by their content below.
    del described["data"]
    described["training"]["precision"] = placement.precision(experiment)
    return {
        "experiment": described,
        "rows": prepared.rows_fingerprint,
        "folds": prepared.folds_fingerprint,
        "sources": {
            name: pack.fingerprint for name, pack in prepared.packs_of(experiment.input).items()
        },
        "fold": fold,
        "world_size": placement.world_size,
        "device_class": placement.device_class,
        "weights": weights,
        "numerics": NUMERICS_VERSION,
    }
