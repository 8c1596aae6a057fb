"""Keys of earlier versions: refused with their new name in a user's file, read in stored ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

RENAMED: Final = {"pool": "downsample", "cutmix": "augment.cutmix"}
"""Former name of a key of an experiment -> its name now, below the same parent."""

_STUDY: Final = {
    "objective": "metric",
    "n_trials": "budget.trials",
    "sampler": "method",
    "startup_trials": "startup_trials",
    "seed": "seed",
}
"""Former key below ``study`` of a space -> its path now."""
FORMER_SECTIONS: Final = frozenset({"search", "study"})
"""Former keys of a space."""


def with_new_names(data: Any) -> Any:
    """Plain data of an earlier version with its keys and dotted paths renamed.

    Only for files that hms_ray wrote itself: in a user's file a former name is an error.
    """
    if isinstance(data, Mapping):
        # Labels of values are the user's own.
        return {
            _new_path(key): value if key in ("choices", "values") else with_new_names(value)
            for key, value in data.items()
        }
    return [with_new_names(item) for item in data] if isinstance(data, list) else data


def with_new_values(data: dict[str, Any]) -> dict[str, Any]:
    """Plain data of a space that hms_ray wrote itself, with values of earlier versions renamed."""
    resources = data.get("resources")
    if isinstance(resources, Mapping) and resources.get("group") == "trial":
        data = {**data, "resources": {**resources, "group": "study"}}
    return data


def _new_path(path: Any) -> Any:
    if not isinstance(path, str):
        return path
    new = ((part, RENAMED.get(part, part)) for part in path.split("."))
    # Stored files have no key that was moved below another one.
    return ".".join(former if "." in name else name for former, name in new)


def former_keys(data: Mapping[str, Any]) -> dict[str, str]:
    """Dotted path of every former key in the data of a space -> its name or path now."""
    found = {"search": "parameters"} if "search" in data else {}
    study = data.get("study")
    if isinstance(study, Mapping):
        found |= {f"study.{key}": _STUDY[key] for key in study if key in _STUDY}
    for section in ("search", "parameters"):
        for path, parameter in _items(data.get(section)):
            new = {"choices": "values", "int": "min and max", "float": "min and max"}
            found |= {
                f"{section}.{path}.{key}": new[key] for key, _ in _items(parameter) if key in new
            }
    return found


def in_new_form(data: Mapping[str, Any]) -> dict[str, Any]:
    """The plain data of a space, or of a study's identity, with former keys as written now."""
    new = {key: value for key, value in data.items() if key not in FORMER_SECTIONS}
    parameters = dict(_items(data.get("search"))) | dict(_items(data.get("parameters")))
    if FORMER_SECTIONS & data.keys() or parameters:
        new["parameters"] = {path: _parameter(given) for path, given in parameters.items()}
    for key, value in _items(data.get("study")):
        # An unknown key stays one key, so that a message can name it.
        *parents, last = _STUDY[key].split(".") if key in _STUDY else [f"study.{key}"]
        here = new
        for parent in parents:
            below = here.get(parent)
            here[parent] = here = dict(below) if isinstance(below, Mapping) else {}
        here.setdefault(last, value)
    return new


def _parameter(given: Any) -> Any:
    """A searched value in the present form, without fields at their defaults."""
    if not isinstance(given, Mapping):
        return given
    new: dict[str, Any] = {}
    for key, value in given.items():
        if value is None or (key == "log" and value is False):
            continue
        if key in ("int", "float") and isinstance(value, (list, tuple)) and len(value) == 2:
            new |= {"min": value[0], "max": value[1]}
        else:
            new["values" if key == "choices" else key] = value
    return new


def _items(data: Any) -> Any:
    return data.items() if isinstance(data, Mapping) else ()
