"""What the cache key of a fold is computed from."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from hms_ray.config.experiment import Experiment, ModelConfig, canonical
from hms_ray.config.import_path import INSTALL_FIX, is_import_path, source_sha256
from hms_ray.dataset.prepare import Prepared
from hms_ray.errors import ModelError, TrainingError
from hms_ray.experiment.placement import Placement, require_sync_batchnorm
from hms_ray.train.versions import key_versions

NUMERICS_VERSION = 3
"""Raise it by hand whenever a change of code changes the result of a fold."""


def cache_key_inputs(
    experiment: Experiment, prepared: Prepared, fold: int, placement: Placement
) -> dict[str, Any]:
    """Everything that can change the result of a fold, as plain data.

    Pretrained weights that are neither in a file nor in the cache of timm's hub are downloaded.

    Args:
        experiment: what is trained.
        prepared: rows, folds and packs.
        fold: validation fold.
        placement: where it is trained.

    Raises:
        ConfigError: if the placement lacks the precision or shared batch statistics.
        ModelError: if pretrained weights cannot be found, downloaded or read, or the source of
            a model from elsewhere cannot be found.
    """
    described = canonical(experiment)
    # Rows and folds are identified by their content below.
    del described["data"]
    described["training"]["precision"] = placement.precision(experiment)
    require_sync_batchnorm(
        experiment.training.sync_batchnorm, placement.device_class, placement.world_size
    )
    if placement.world_size == 1:
        # One worker has all rows of a batch.
        described["training"].pop("sync_batchnorm", None)
    found = [_model_and_weights(encoder) for encoder in experiment.model.encoders]
    for place, (name, _) in zip(names_of_models(described["model"]), found, strict=True):
        place["name"] = name
    label_rows = experiment.training.draws_label_rows
    packs = prepared.packs_of(experiment.joint_input, label_rows=label_rows)
    return {
        "experiment": described,
        "rows": prepared.rows_fingerprint,
        "folds": prepared.folds_fingerprint,
        **({"label_rows": prepared.label_rows_fingerprint} if label_rows else {}),
        "sources": {name: pack.fingerprint for name, pack in packs.items()},
        "fold": fold,
        "world_size": placement.world_size,
        "device_class": placement.device_class,
        "weights": _weights(experiment.model),
        **model_source(experiment.model),
        "versions": key_versions(placement.device_class),
        "numerics": NUMERICS_VERSION,
    }


def model_source(model: ModelConfig) -> dict[str, str]:
    """``model_source``: the SHA-256 of the source of a model from elsewhere; empty for timm.

    Raises:
        ModelError: if there is no source on this machine.
    """
    return {"model_source": source_sha256(model.name)} if is_import_path(model.name) else {}


def require_planned(experiment: Experiment, key_inputs: Mapping[str, Any]) -> None:
    """Checks in the process that trains a fold that it has what the cache key names.

    Nodes of a cluster may have other libraries, or other weights in their cache.

    Args:
        experiment: what is trained.
        key_inputs: see ``cache_key_inputs``.

    Raises:
        TrainingError: if libraries, pretrained weights or the source of a model from elsewhere
            are others.
        ModelError: if pretrained weights cannot be found, downloaded or read.
    """
    _require_planned_source(experiment.model, key_inputs.get("model_source"))
    planned = key_inputs["versions"], key_inputs["weights"]
    here = key_versions(key_inputs["device_class"]), _weights(experiment.model)
    if here != planned:
        raise TrainingError(
            "a fold must be trained with the libraries and weights of its cache key",
            got=f"{here[0]} and weights {here[1]} instead of {planned[0]} and {planned[1]}",
            where=platform.node(),
            fix="Install the same versions on all nodes, and give the same pretrained weights to "
            "all with model.weights_file on a shared file system.",
        )


def _require_planned_source(model: ModelConfig, planned: str | None) -> None:
    """Checks the source of a model from elsewhere, before it is imported."""
    if planned is None:
        return
    try:
        here = source_sha256(model.name)
    except ModelError as error:
        got, fix = str(error.got), INSTALL_FIX
    else:
        if here == planned:
            return
        got = f"SHA-256 {here[:12]} instead of {planned[:12]}"
        fix = "Copy the same source to all machines, and run the command again."
    raise TrainingError(
        "a fold must be trained with the source of its cache key",
        got=got,
        where=f"{platform.node()}, {model.name}",
        fix=fix,
    )


def names_of_models(described: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a canonical model that have the name of a model: itself, or its branches."""
    branches: list[dict[str, Any]] = described.get("branches", [described])
    return branches


def _weights(model: ModelConfig) -> str | list[str | None] | None:
    """SHA-256 of the pretrained weights; with branches, a list."""
    found = [_model_and_weights(encoder)[1] for encoder in model.encoders]
    return found[0] if model.branches is None else found


def _model_and_weights(model: ModelConfig) -> tuple[str, str | None]:
    """A model's name with the tag of its weights, and the SHA-256 of their file."""
    if is_import_path(model.name):
        return model.name, None
    if not model.pretrained:
        # A tag names weights only. timm is not imported: that takes seconds.
        return model.name.split(".")[0], None
    from hms_ray.train.pretrained import pretrained_weights

    weights = pretrained_weights(model)
    assert weights is not None
    return weights.name, weights.sha256
