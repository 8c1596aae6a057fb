"""What goes into the cache key of a fold."""

from __future__ import annotations

from typing import Any

from hms_ray.config.experiment import Experiment, canonical
from hms_ray.dataset.prepare import Prepared
from hms_ray.experiment.placement import Placement
from hms_ray.storage.hashing import digest

NUMERICS_VERSION = 1
"""Raised by hand whenever a change of code changes what a fold comes out as."""


def experiment_key(experiment: Experiment) -> str:
    """Digest of what of an experiment changes results; equal for duplicates."""
    return digest(canonical(experiment))


def fold_ingredients(
    experiment: Experiment,
    prepared: Prepared,
    fold: int,
    placement: Placement,
    weights: str | None = None,
) -> dict[str, Any]:
    """Everything that can change the result of a fold, as plain data.

    Args:
        experiment: any experiment.
        prepared: rows, folds and packs by content.
        fold: validation fold.
        placement: where it is trained.
        weights: SHA-256 of a local file of pretrained weights, if one is given.
    """
    described = canonical(experiment)
    # Rows and folds go in by content, so how they came about does not matter.
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
