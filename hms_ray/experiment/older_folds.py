"""Why stored folds of the same experiment are not reused: made with other versions or weights."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.former_names import with_new_names
from hms_ray.config.import_path import is_import_path
from hms_ray.errors import ModelError
from hms_ray.experiment.cache_key import NUMERICS_VERSION, names_of_models
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.storage.fold_store import RECORD_FILE, FoldStore
from hms_ray.storage.hashing import digest
from hms_ray.text import counted
from hms_ray.train.versions import key_versions

_WORDS: Final = {
    "torch": "torch {}",
    "timm": "timm {}",
    "cuda": "CUDA {}",
    "tag": "weights {}",
    "weights": "pretrained weights {}...",
    "model_source": "model source {}...",
    "numerics": "numerics version {}",
    "deterministic": "training.deterministic {}",
    "compile": "training.compile {}",
    "precision": "precision {}",
    "device_class": "device {}",
    "world_size": "world size {}",
}
"""Part of a cache key that may differ between results of one experiment -> how it is printed."""

_CACHED_RECORDS: Final = 100_000
_SETTLED_NS: Final = 2_000_000_000
"""A folder's content may change without a change of its time within this time after one."""

_Results = dict[str, list[dict[str, Any]]]
"""What ``_same`` gives -> what ``_circumstances`` gives, for each of some results."""
_listed: dict[Path, tuple[int, _Results]] = {}
"""Folder of a store -> time of its last change when it was listed, and its results."""


def not_reused(tasks: Sequence[FoldTask]) -> str | None:
    """One line about stored folds that equal tasks but for versions, weights or the like.

    Each process reads a record once, and lists a part of the store again only after a change:
    a study asks before each trial, and its store grows with every fold.

    Args:
        tasks: folds that are not in the store, all of one store.

    Returns:
        Their number, and which parts of the key differ; None if there are none.
    """
    if not tasks:
        return None
    parts = [_listing(part) for part in FoldStore(tasks[0].results).parts()]
    reasons: Counter[str] = Counter()
    for task in tasks:
        now = _circumstances(task.key_inputs)
        same = _same(task.experiment, task.key_inputs)
        older = (old for results in parts for old in results.get(same, ()))
        changes = sorted((made for old in older if (made := _differences(old, now))), key=len)
        if changes:
            # Of several older results the one that is most like the new one.
            reasons[", ".join(changes[0])] += 1
    return _line(reasons, "stored fold", "not reused") if reasons else None


def made_otherwise(keys: Sequence[str], results: str | Path, device_class: str) -> str | None:
    """One line about finished trials whose folds were made with other versions than today's.

    They are not trained again: a study compares what it has.

    Args:
        keys: cache key of one fold of each finished trial; those not in the store are skipped.
        results: folder of the store.
        device_class: where other trials will be trained.
    """
    now = {**key_versions(device_class), "numerics": NUMERICS_VERSION}
    reasons: Counter[str] = Counter()
    for key in keys:
        described = _stored(FoldStore(results).path(key))
        if described is not None and (parts := _differences(described[1], now)):
            reasons[", ".join(parts)] += 1
    return _line(reasons, "finished trial", "kept") if reasons else None


def _line(reasons: Counter[str], noun: str, fate: str) -> str:
    n = reasons.total()
    made = [f"made with {reason}" for reason in reasons]
    if len(reasons) > 1:
        made = [f"{n_of} {text}" for n_of, text in zip(reasons.values(), made, strict=True)]
    return f"{counted(n, noun)} {'is' if n == 1 else 'are'} {fate}: {'; '.join(made)}"


def _differences(old: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One text per part of ``now`` that differs."""
    if old["torch"] is None:
        # Keys did not have versions yet, nor the rest of what is compared here.
        return [f"an unknown torch version (now {now['torch']})"]
    changed = [part for part in _WORDS if part in now and old[part] != now[part]]
    if "tag" in changed:
        changed.remove("weights")
    return [f"{_WORDS[part].format(_yaml(old[part]))} (now {_yaml(now[part])})" for part in changed]


def _yaml(value: Any) -> Any:
    """A switch as it is written in an experiment."""
    return str(value).lower() if isinstance(value, bool) else value


def _listing(part: Path) -> _Results:
    """Results in one of the folders that a store consists of."""
    try:
        changed = part.stat().st_mtime_ns
    except FileNotFoundError:
        return {}
    known = _listed.get(part)
    if known is not None and known[0] == changed:
        return known[1]
    settled = time.time_ns() - changed > _SETTLED_NS
    found: _Results = {}
    for file in part.glob(f"*/{RECORD_FILE}"):
        if (described := _stored(file.parent)) is not None:
            found.setdefault(described[0], []).append(described[1])
    if settled:
        _listed[part] = changed, found
    return found


@lru_cache(maxsize=_CACHED_RECORDS)
def _stored(folder: Path) -> tuple[str, dict[str, Any]] | None:
    """What ``_same`` and ``_circumstances`` give for a stored result; None if it is damaged."""
    try:
        record = json.loads((folder / RECORD_FILE).read_bytes())
        key_inputs = record["made_from"]
        experiment = Experiment.model_validate(with_new_names(record["resolved"]))
        return _same(experiment, key_inputs), _circumstances(key_inputs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Also a result whose experiment this version does not know (pydantic's ValueError).
        return None


def _same(experiment: Experiment, key_inputs: Mapping[str, Any]) -> str:
    """Digest of the part of a key that makes two results one experiment's fold.

    Fields that are newer than a result count with their defaults, and a model's name without a
    tag counts with today's default tag.
    """
    described = canonical(experiment)
    del described["data"], described["training"]["precision"]
    del described["training"]["deterministic"]
    described["training"].pop("compile", None)
    model = experiment.model
    places = names_of_models(described["model"])
    for place, encoder in zip(places, model.encoders, strict=True):
        if not is_import_path(encoder.name):
            tagged = _tagged if encoder.pretrained else _untagged
            place["name"] = tagged(encoder.name)
    parts = {part: key_inputs[part] for part in ("rows", "folds", "sources", "fold")}
    return digest([described, parts])


def _untagged(name: str) -> str:
    return name.split(".")[0]


@lru_cache(maxsize=1024)
def _tagged(name: str) -> str:
    from hms_ray.train.pretrained import tagged_name

    try:
        return tagged_name(name)
    except ModelError:
        # Of another version of timm.
        return name


def _shown_weights(weights: str | list[str | None] | None) -> str | None:
    """The start of the hash of each model's weights."""
    if isinstance(weights, list):
        return ", ".join("none" if one is None else one[:8] for one in weights)
    return weights and weights[:8]


def _circumstances(key_inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The other parts of a key, flat; None if absent."""
    versions = key_inputs.get("versions") or {}
    training, weights = key_inputs["experiment"]["training"], key_inputs["weights"]
    return {
        **{part: versions.get(part) for part in ("torch", "timm", "cuda")},
        "tag": " + ".join(
            one["name"] for one in names_of_models(key_inputs["experiment"]["model"])
        ),
        "weights": _shown_weights(weights),
        "model_source": key_inputs.get("model_source", "")[:8],
        "deterministic": training.get("deterministic"),
        "compile": training.get("compile", "off"),
        "precision": training["precision"],
        **{part: key_inputs[part] for part in ("numerics", "device_class", "world_size")},
    }
