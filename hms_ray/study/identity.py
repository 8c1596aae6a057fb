"""Identity of a study: two runs with the same identity are the same study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from hms_ray.config.experiment import Experiment, ModelConfig, used_data_values
from hms_ray.config.import_path import is_import_path, source_sha256
from hms_ray.config.space import BLEND_GAIN, Space
from hms_ray.config.values import parameter_values, replace_values
from hms_ray.dataset.prepare import Prepared

_WEIGHTS_PATHS: Final = ("model", "model.weights_file")
"""Searched parameters whose values are, or contain, the path of a weights file."""
_BRANCHES: Final = "model.branches"
"""Start of those of branches."""


def study_identity(space: Space, prepared: Prepared) -> dict[str, Any]:
    """Search space and data of a study as plain data; equal for the same study.

    See ``space_identity`` for the space.

    Raises:
        ModelError: if a weights file cannot be read.
    """
    return {**space_identity(space), "data": data_identity(prepared)}


def data_identity(prepared: Prepared) -> dict[str, Any]:
    """The part of a study's identity that is its data: rows, folds and packs."""
    return {
        "rows": prepared.rows_fingerprint,
        "folds": prepared.folds_fingerprint,
        "packs": {key: pack.fingerprint for key, pack in prepared.packs.items()},
        **(
            {"label_rows": prepared.label_rows_fingerprint}
            if prepared.label_rows_fingerprint
            else {}
        ),
        **({"holdout": prepared.holdout.fingerprint} if prepared.holdout else {}),
    }


def space_identity(space: Space) -> dict[str, Any]:
    """The part of a study's identity that does not depend on its data.

    The number of trials, names, the path of a weights file and most resources may change
    between runs. The content of a weights file, the world size and the device class change
    results and may not. A searched weights file may move if its value has a label; without
    one, Optuna's journal identifies the value by its path.

    Raises:
        ModelError: if a weights file cannot be read, or the source of a model from elsewhere
            cannot be found.
    """
    data = space.model_dump(mode="json")
    return {
        "experiment": _experiment_identity(space.experiment),
        "parameters": {
            path: _without_files(path, parameter.model_dump(mode="json", exclude_defaults=True))
            for path, parameter in space.parameters.items()
        },
        **{name: data[name] for name in ("start", "method", "metric", "seed", "startup_trials")},
        **({"gain": data["gain"]} if space.metric == BLEND_GAIN else {}),
        "resources": {
            "workers": space.resources.workers,
            "device": "cuda" if space.resources.gpus_per_worker > 0 else "cpu",
        },
        "weights": _weights(space),
        **({"model_sources": sources} if (sources := _model_sources(space)) else {}),
    }


def _experiment_identity(experiment: Experiment) -> dict[str, Any]:
    data = experiment.model_dump(mode="json")
    data["data"] = used_data_values(experiment.data)
    del data["name"], data["model"]["weights_file"]
    for branch in data["model"]["branches"] or ():
        del branch["weights_file"]
    return data


def with_added_fields(identity: Mapping[str, Any]) -> dict[str, Any]:
    """A stored identity with the experiment's fields that an earlier version did not have.

    The default of such a field keeps what was trained before, so that a study stays resumable.
    """
    try:
        experiment = Experiment.model_validate(identity["experiment"])
    except (KeyError, ValidationError):
        # Of a version too far away: its differences are named as they are.
        return dict(identity)
    return {**identity, "experiment": _experiment_identity(experiment)}


def _without_files(path: str, parameter: dict[str, Any]) -> dict[str, Any]:
    """A parameter without the paths of its labelled weights files (see ``_weights``)."""
    labelled = parameter.get("values")
    if not _decides_weights(path) or not isinstance(labelled, dict):
        return parameter
    if path.endswith(".weights_file"):
        return {**parameter, "values": dict.fromkeys(labelled)}
    return {**parameter, "values": {label: _without_paths(one) for label, one in labelled.items()}}


def _decides_weights(path: str) -> bool:
    """Whether values of a parameter are, or contain, paths of weights files."""
    return path in _WEIGHTS_PATHS or path.startswith(_BRANCHES)


def _without_paths(value: Any) -> Any:
    """A value without the paths of weights files in it."""
    if isinstance(value, Mapping):
        return {name: _without_paths(one) for name, one in value.items() if name != "weights_file"}
    return [_without_paths(one) for one in value] if isinstance(value, list) else value


def import_paths(space: Space) -> list[str]:
    """Models from elsewhere that a space names, sorted."""
    names = {space.experiment.model.name}
    for path in ("model", "model.name"):
        if path in space.parameters:
            for value in parameter_values(space.parameters[path]).values():
                names.add(str(value.get("name", "")) if isinstance(value, Mapping) else str(value))
    return sorted(filter(is_import_path, names))


def _model_sources(space: Space) -> dict[str, str]:
    """SHA-256 of the source of every model from elsewhere."""
    return {name: source_sha256(name) for name in import_paths(space)}


def _weights(space: Space) -> dict[str, Any]:
    """Fingerprint of every weights file: the experiment's and each searched one's."""
    model = space.experiment.model
    found = {"experiment": _fingerprint(model)}
    # In a folder of weights every model has a file of its own.
    names = ("model.name",) if model.weights_file and Path(model.weights_file).is_dir() else ()
    branches = [path for path in space.parameters if path.startswith(_BRANCHES)]
    for path in (*_WEIGHTS_PATHS, *names, *branches):
        if path in space.parameters:
            for label, value in parameter_values(space.parameters[path]).items():
                searched = replace_values(space.experiment, {path: value}).model
                found[f"{path}.{label}"] = _fingerprint(searched)
    return found


def _fingerprint(model: ModelConfig) -> str | list[str | None] | None:
    """Of the model's weights file, or of that of each branch; None without any."""
    if not any(model.weights_files.values()):
        return None
    # train.pretrained imports torch; most studies have no weights file.
    from hms_ray.train.pretrained import weights_fingerprint

    found = [weights_fingerprint(encoder) for encoder in model.encoders]
    return found[0] if model.branches is None else found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One text per field that differs between two identities."""
    return [
        f"{place} was {_shown(first)}, is {_shown(second)}"
        for place, (first, second) in changed_values(before, now).items()
    ]


def changed_values(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted place -> both values, where two nested mappings differ; None if absent."""
    first, second = _flat(before), _flat(now)
    return {
        place: (first.get(place), second.get(place))
        for place in sorted(first.keys() | second.keys())
        # A null is not the same as nothing: choices may have one.
        if (place in first, first.get(place)) != (place in second, second.get(place))
    }


def _flat(data: Any, place: str = "") -> dict[str, Any]:
    """Nested plain data as dotted path -> value; empty mappings and lists are kept."""
    items: Iterator[tuple[Any, Any]] | None = None
    if isinstance(data, Mapping) and data:
        items = iter(data.items())
    elif isinstance(data, list) and any(isinstance(item, (list, Mapping)) for item in data):
        items = iter(enumerate(data))
    if items is None:
        return {place: data}
    flat: dict[str, Any] = {}
    for name, below in items:
        flat.update(_flat(below, f"{place}.{name}" if place else str(name)))
    return flat


def _shown(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}...{text[-12:]}"
