"""Wheels of the running code and of installed packages, made without network or build tools.

A notebook without internet installs them (format: PEP 427 and PEP 376).
"""

from __future__ import annotations

import base64
import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import hms_ray
from hms_ray import __version__
from hms_ray.config.shipped import FOLDER
from hms_ray.errors import ConfigError

_NAME: Final = "hms_ray"
_PACKAGE: Final = Path(hms_ray.__file__).parent
_PROJECT: Final = _PACKAGE.parent / "pyproject.toml"
"""Exists in a checkout, also if the checkout is installed as editable: the metadata of an
editable install may be older than its code."""
_DATE: Final = (1980, 1, 1, 0, 0, 0)
"""Of every file, so that equal code gives equal wheels."""
_TAG: Final = "py3-none-any"
_WHEEL: Final = f"Wheel-Version: 1.0\nGenerator: {_NAME}\nRoot-Is-Purelib: true\nTag: {_TAG}\n"
_OF_INSTALL: Final = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})
"""Files of a ``.dist-info`` folder that belong to an installation, not to its wheel."""


def write_own_wheel(folder: Path) -> Path:
    """Writes a wheel of the running code of hms_ray into a folder; returns its path.

    Raises:
        ConfigError: if it runs neither from a checkout nor from an installed package.
    """
    if _PROJECT.is_file():
        about = _project()
        info = f"{_NAME}-{__version__}.dist-info"
        described = {
            "METADATA": _metadata_text(about),
            "WHEEL": _WHEEL,
            "entry_points.txt": "[console_scripts]\n"
            + "".join(f"{name} = {target}\n" for name, target in about["scripts"].items()),
        }
        files = dict(_files_of_checkout())
        files |= {f"{info}/{name}": text.encode() for name, text in described.items()}
        for name in about["license-files"]:
            files[f"{info}/licenses/{name}"] = (_PROJECT.parent / name).read_bytes()
        return _write(folder, _NAME, __version__, files)
    try:
        found = metadata.distribution(_NAME)
    except metadata.PackageNotFoundError:
        found = None
    if found is None or Path(str(found.locate_file(_NAME))).resolve() != _PACKAGE.resolve():
        raise ConfigError(
            "a wheel can be made of an installed package or a checkout",
            got="neither",
            where=_PACKAGE,
            fix="Install hms_ray, or export with --no-wheel.",
        )
    return write_installed_wheel(folder, _NAME)


def write_installed_wheel(folder: Path, name: str) -> Path:
    """Writes a wheel of an installed pure-Python package into a folder; returns its path.

    Raises:
        PackageNotFoundError: if it is not installed.
    """
    found = metadata.distribution(name)
    files = {
        file.as_posix(): file.read_binary()
        for file in found.files or ()
        if file.parts[0] != ".." and "__pycache__" not in file.parts
        if not (file.parts[0].endswith(".dist-info") and file.parts[-1] in _OF_INSTALL)
    }
    return _write(folder, name, found.version, files)


def requirements() -> list[str]:
    """What hms_ray requires to be installed, such as ``numpy>=2.0``; empty if unknown."""
    if _PROJECT.is_file():
        return list(_project()["dependencies"])
    try:
        lines = metadata.requires(_NAME) or []
    except metadata.PackageNotFoundError:
        return []
    return [line for line in lines if "extra ==" not in line]


def _project() -> dict[str, Any]:
    about: dict[str, Any] = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]
    return about


def _metadata_text(about: Mapping[str, Any]) -> str:
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {_NAME}",
        f"Version: {__version__}",
        f"Summary: {about['description']}",
        f"License-Expression: {about['license']}",
        *(f"License-File: {name}" for name in about["license-files"]),
        f"Requires-Python: {about['requires-python']}",
        *(f"Requires-Dist: {line}" for line in about["dependencies"]),
    ]
    return "\n".join(lines) + "\n"


def _files_of_checkout() -> Iterator[tuple[str, bytes]]:
    """Name in the wheel -> content; the search spaces move into the package."""
    for root, place in ((_PACKAGE, _NAME), (FOLDER, f"{_NAME}/{FOLDER.name}")):
        for file in sorted(root.rglob("*")):
            inside = file.relative_to(root)
            hidden = any(part.startswith((".", "__pycache__")) for part in inside.parts)
            if file.is_file() and not hidden:
                yield f"{place}/{inside.as_posix()}", file.read_bytes()


def _write(folder: Path, name: str, version: str, files: Mapping[str, bytes]) -> Path:
    info = f"{name}-{version}.dist-info"
    lines = [f"{file},{_hash(data)},{len(data)}\n" for file, data in files.items()]
    record = "".join([*lines, f"{info}/RECORD,,\n"]).encode()
    wheel = folder / f"{name}-{version}-{_TAG}.whl"
    with ZipFile(wheel, "w") as archive:
        for file, data in {**files, f"{info}/RECORD": record}.items():
            entry = ZipInfo(file, _DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, ZIP_DEFLATED)
    return wheel


def _hash(data: bytes) -> str:
    """As ``RECORD`` has it: URL-safe base64 without padding."""
    text = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
    return f"sha256={text.rstrip('=')}"
