"""A space file together with the files that it is based on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hms_ray.config.shipped import find_shipped
from hms_ray.config.yaml_files import Marks, read_mapping
from hms_ray.errors import ConfigError

BASE: Final = "base"


def read_with_bases(path: str | Path, marks: Marks) -> dict[str, Any]:
    """The plain data of a space file, merged into that of its ``base``, and so on.

    Args:
        path: YAML file.
        marks: gets the line of every key, with the file if it is another one.

    Raises:
        ConfigError: if a file cannot be read, or bases form a circle.
    """
    return _read(Path(path), marks, ())


def _read(path: Path, marks: Marks, above: tuple[Path, ...]) -> dict[str, Any]:
    here = path.resolve()
    if here in above:
        chain = [*above[above.index(here) :], here]
        raise ConfigError(
            "a base must not lead back to its own file",
            got=" -> ".join(file.name for file in chain),
            where=chain[-2],
            fix=f"Remove base from {chain[-2].name}.",
        )
    own: Marks = {}
    data = read_mapping(path, own)
    base = data.pop(BASE, None)
    if base is None:
        marks |= own
        return data
    if not isinstance(base, str):
        raise ConfigError(
            "base must be a file, or the name of a shipped space", got=base, where=path
        )
    below: Marks = {}
    file = _base_file(base, path)
    merged = _merged(_read(file, below, (*above, here)), data)
    # A line of a file that is further down already has its name.
    marks |= {
        place: mark if " of " in mark else f"{mark} of {file}" for place, mark in below.items()
    }
    marks |= own
    return merged


def _base_file(base: str, path: Path) -> Path:
    for name in (base, f"{base}.yaml"):
        file = path.parent / name
        if file.is_file():
            return file
    try:
        return find_shipped(base)
    except ConfigError as error:
        raise ConfigError(
            "base must be a file, relative to this one, or the name of a shipped space",
            got=error.got,
            where=path,
            fix="Correct base.",
        ) from None


def _merged(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the values of the file on top; parameters are replaced as a whole."""
    merged = _deep(base, {key: value for key, value in top.items() if key != "parameters"})
    both = [data.get("parameters") for data in (base, top)]
    if isinstance(both[0], Mapping) and isinstance(both[1], Mapping):
        joined = {**both[0], **both[1]}
        merged["parameters"] = {path: given for path, given in joined.items() if given is not None}
    elif "parameters" in top:
        merged["parameters"] = top["parameters"]
    return merged


def _deep(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _deep(below, value)
        else:
            merged[key] = value
    return merged
