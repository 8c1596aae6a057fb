"""What makes two runs of a command the same study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hms_ray.config import Space
from hms_ray.prepare import Prepared


def study_identity(space: Space, prepared: Prepared) -> dict[str, Any]:
    """Search space and data of a study as plain data; equal for the same study.

    The number of trials, names, paths of weights and most resources may change from
    run to run; the world size and the device class change results and may not.
    """
    data = space.model_dump(mode="json", by_alias=True)
    experiment = data["experiment"]
    del experiment["name"], experiment["model"]["weights_file"], data["study"]["n_trials"]
    return {
        "experiment": experiment,
        "search": data["search"],
        "start": data["start"],
        "study": data["study"],
        "resources": {
            "workers": space.resources.workers,
            "device": "cuda" if space.resources.gpus_per_worker > 0 else "cpu",
        },
        "data": {
            "rows": prepared.rows_fingerprint,
            "folds": prepared.folds_fingerprint,
            "pack": prepared.pack_fingerprint,
        },
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One text for each place at which two identities differ."""
    first, second = _flat(before), _flat(now)
    return [
        f"{place} was {_shown(first.get(place))}, is {_shown(second.get(place))}"
        for place in sorted(first.keys() | second.keys())
        if first.get(place) != second.get(place)
    ]


def _flat(data: Any, place: str = "") -> dict[str, Any]:
    """Nested plain data as dotted place -> value; empty mappings and lists stay."""
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
