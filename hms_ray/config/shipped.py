"""Search spaces that come with the package, found by name from any folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import hms_ray
from hms_ray.config.yaml_files import read_mapping
from hms_ray.errors import ConfigError
from hms_ray.text import closest

_PACKAGE: Final = Path(hms_ray.__file__).parent
_PLACES: Final = (_PACKAGE / "search_spaces", _PACKAGE.parent / "search_spaces")
FOLDER: Final = _PLACES[0] if _PLACES[0].is_dir() else _PLACES[1]
"""Inside an installed package, beside the package in a checkout."""
LADDER: Final = FOLDER / "ladder" / "ladder.yaml"
"""Manifest of the published ladder."""
LADDERS: Final = {"published": LADDER, "gold": FOLDER / "gold" / "ladder.yaml"}
"""Name of a shipped ladder -> its manifest."""


def find_space(name: str | Path) -> Path:
    """The file of an experiment or search space.

    Args:
        name: path of a local file, with or without ``.yaml``; or, if there is no such file,
            the name of a shipped one: ``demo``, ``ladder/09_panels_4``, or a step of the
            published ladder, ``ladder/9_panels_4``.

    Raises:
        ConfigError: if there is neither.
    """
    for file in (Path(name), Path(f"{name}.yaml")):
        if file.is_file():
            return file
    return find_shipped(name)


def find_manifest(name: str | Path) -> Path:
    """The manifest of a ladder: a file, or the name of a shipped ladder.

    Raises:
        ConfigError: if there is neither.
    """
    if Path(name).is_file():
        return Path(name)
    if str(name) not in LADDERS:
        raise ConfigError(
            f"a ladder must be a manifest's file, or {' or '.join(LADDERS)}",
            got=f"{name}{closest(str(name), LADDERS)}",
        )
    return LADDERS[str(name)]


def find_shipped(name: str | Path) -> Path:
    """The file of a shipped experiment or search space, by name; see ``find_space``.

    Raises:
        ConfigError: if there is none of this name.
    """
    shipped = _shipped()
    wanted = str(name).removesuffix(".yaml").removeprefix("search_spaces/")
    if wanted not in shipped:
        raise ConfigError(
            "a configuration file must exist, or be shipped with hms_ray",
            got=f"{name}{closest(wanted, shipped)}",
        )
    return shipped[wanted]


def shipped_files() -> list[Path]:
    """The files of all shipped experiments and search spaces."""
    patterns = ("*.yaml", "gold/[0-9]*.yaml", "ladder/[0-9]*.yaml")
    return [file for pattern in patterns for file in sorted(FOLDER.glob(pattern))]


def _shipped() -> dict[str, Path]:
    """Name -> file of every shipped experiment and search space."""
    found = {str(file.relative_to(FOLDER).with_suffix("")): file for file in shipped_files()}
    for step in read_mapping(LADDER)["steps"]:
        if "file" in step:
            found[f"ladder/{step['name']}"] = LADDER.parent / step["file"]
    return found
