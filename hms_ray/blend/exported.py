"""An export read back: checked, and its models as those of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from hms_ray import __version__
from hms_ray.blend.stored import StoredBlend, read_blend
from hms_ray.competition.schema import CLASSES
from hms_ray.config.loading import load_space
from hms_ray.errors import ConfigError, StudyError
from hms_ray.predict.trial import FoldModel, TrialModels
from hms_ray.storage.hashing import file_sha256
from hms_ray.storage.structured_files import read_json, unreadable_file

FORMAT: Final = 1
EXPORT_FILE: Final = "export.json"
BLEND: Final = "blend.json"
EXPERIMENT, FOLDS = "experiment.yaml", "folds.json"
"""Files of each member's folder."""
TRACKED_PACKAGES: Final = ("torch", "timm", "numpy", "safetensors")
"""Packages whose versions are recorded."""
_DECISIVE: Final = ("hms_ray", "torch", "timm")
"""Packages that may change predictions with their major or minor version."""
_FIX: Final = "Copy the whole export again, or export again: hms-ray export"


@dataclass(frozen=True)
class ExportedFold:
    """The model of one fold in an export; a ``FoldModel``."""

    record: dict[str, Any]
    weights: Path


@dataclass(frozen=True)
class Export:
    """A trial or a blend in an export.

    Attributes:
        name: of what was exported.
        models: of all needed members.
        blend: the fitted blend; None for a trial.
        notes: lines to print, on versions that differ from those of the export.
    """

    name: str
    models: list[TrialModels]
    blend: StoredBlend | None
    notes: tuple[str, ...]


def read_export(file: Path, *, trust_code: bool = False) -> Export:
    """Reads and checks an export; wheels and the page are not needed.

    Args:
        file: its ``export.json``.
        trust_code: see ``TrialModels``.

    Raises:
        StudyError: naming the file, if one is missing, changed or of another version.
    """
    folder, about = file.parent, read_json(file, dict, _FIX)
    if about.get("format") != FORMAT or about.get("classes") != list(CLASSES):
        raise StudyError(
            f"an export must have format {FORMAT} and the classes {', '.join(CLASSES)}",
            got=f"format {about.get('format')}, {about.get('classes')}",
            where=file,
            fix="Install the wheel in this folder, or export again: hms-ray export",
        )
    try:
        checksums, members = dict(about["files"]), list(about["members"])
        for name, expected in checksums.items():
            if name == BLEND or name.startswith("models/"):
                _require_unchanged(folder / name, expected)
        models = [_member(folder / member["folder"], trust_code) for member in members]
        blend = read_blend(folder / BLEND) if BLEND in checksums else None
        return Export(str(about["name"]), models, blend, _version_notes(about["versions"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise unreadable_file(file, error, _FIX) from None


def _require_unchanged(file: Path, expected: str) -> None:
    found = file_sha256(file) if file.is_file() else None
    if found != expected:
        raise StudyError(
            "a file of an export must be complete and unchanged",
            got=f"{f'SHA-256 {found}' if found else 'no file'} instead of SHA-256 {expected}",
            where=file,
            fix=_FIX,
        )


def _member(folder: Path, trust_code: bool) -> TrialModels:
    try:
        experiment = load_space(folder / EXPERIMENT, stored=True).experiment
    except ConfigError as error:
        raise StudyError(
            "an export must be of this version of hms_ray",
            got=f"{error.rule}: {error.got}",
            where=folder / EXPERIMENT,
            fix="Install the wheel in the export, or export again: hms-ray export",
        ) from None
    described = read_json(folder / FOLDS, dict, _FIX)
    folds: dict[int, FoldModel] = {
        int(fold): ExportedFold(
            {
                "precision": entry["precision"],
                "normalisation": entry["normalisation"],
                "made_from": {name: entry.get(name) for name in ("numerics", "model_source")},
            },
            folder / entry["weights"],
        )
        for fold, entry in described["folds"].items()
    }
    numbers = int(described.get("n_refits", 0)), int(described.get("n_seeds", 1))
    return TrialModels(str(described["name"]), experiment, folds, trust_code, *numbers)


def _version_notes(exported: Mapping[str, str]) -> tuple[str, ...]:
    here = {name: __version__ if name == "hms_ray" else _installed(name) for name in _DECISIVE}
    other = [
        f"{name} {here[name]}, exported with {exported[name]}"
        for name in _DECISIVE
        if _minor(here[name]) != _minor(exported[name])
    ]
    return (f"{'; '.join(other)}: predictions may differ slightly",) if other else ()


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]
