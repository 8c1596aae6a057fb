"""``hms-ray export``: all that ``submit`` needs of a trial or a blend, as one folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

from hms_ray import __version__
from hms_ray.blend.apply import models_of
from hms_ray.blend.export_page import export_page
from hms_ray.blend.exported import (
    BLEND,
    EXPERIMENT,
    EXPORT_FILE,
    FOLDS,
    FORMAT,
    TRACKED_PACKAGES,
)
from hms_ray.blend.stored import StoredBlend, read_blend
from hms_ray.blend.target import find_target
from hms_ray.blend.wheel import write_installed_wheel, write_own_wheel
from hms_ray.competition.schema import CLASSES
from hms_ray.errors import ConfigError, PredictionError, StudyError
from hms_ray.predict.trial import (
    FoldModel,
    ModelChoice,
    TrialModels,
    read_models,
    require_weights,
)
from hms_ray.storage.atomic import require_writable, whole_folder
from hms_ray.storage.hashing import file_sha256
from hms_ray.storage.structured_files import json_text, yaml_text
from hms_ray.text import counted

README: Final = "README.md"
_BUNDLED: Final = ("filelock", "typer")
"""Small pure-Python packages that images of notebooks tend to have in older versions."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of ``hms-ray export``.

    Attributes:
        out: folder to write; must not exist or be empty.
        results: folder of all studies and the fold store.
        dtype: of the weights; ``float16`` halves the folder, see ``export_weights``.
        wheel: add wheels of hms_ray and of packages that it needs in a recent version.
        models: of a trial, or of each member of a blend.
    """

    out: Path
    results: Path = Path("results")
    dtype: Literal["stored", "float16"] = "stored"
    wheel: bool = True
    models: ModelChoice = "folds"


def export(target: str, options: ExportOptions) -> str:
    """Writes the models of a trial or a blend as a folder that needs no other file.

    The folder appears as a whole or not at all. Members of weight 0 are skipped.

    Args:
        target: a study's name or path (its best trial), ``STUDY/TRIAL``, a ``blend.json``
            or the folder of one.
        options: of the command.

    Returns:
        Lines to print.

    Raises:
        ConfigError: if the folder has content or cannot be written, or no wheel can be made.
        StudyError: if the target does not exist or is an export, or a fold is missing or
            damaged.
        PredictionError: if a needed member has no stored models.
        ModelError: if float16 cannot hold a weight.
    """
    _require_new(options.out)
    name, models, blend = _read_target(target, options.results, options.models)
    with whole_folder(options.out) as draft:
        _fill(draft, options, name, models, blend)
        n_bytes = sum(file.stat().st_size for file in _files(draft))
    return "\n".join([*_skipped(blend), _summary(options, name, models, n_bytes)])


def _read_target(
    target: str, results: Path, choice: ModelChoice
) -> tuple[str, list[TrialModels], StoredBlend | None]:
    """Name, needed models and, if it is one, the blend of a target."""
    found = find_target(target, results)
    if not isinstance(found, Path):
        trial, keys = found.models()
        name = found.name(trial)
        return name, [read_models(name, keys, results, choice)], None
    if found.name == EXPORT_FILE:
        raise StudyError(
            "export needs a study, STUDY/TRIAL or a blend",
            got="an export",
            where=found.parent,
            fix="Copy that folder.",
        )
    blend = read_blend(found)
    # Two folders: the whole path would make this machine's folders public.
    return (
        f"blend {'/'.join(found.resolve().parts[-3:-1])}",
        _models_of_blend(blend, results, choice),
        blend,
    )


def _fill(
    draft: Path,
    options: ExportOptions,
    name: str,
    models: Sequence[TrialModels],
    blend: StoredBlend | None,
) -> None:
    """Writes all files of an export, ``export.json`` last."""
    places = [_write_models(draft, n, one, options.dtype) for n, one in enumerate(models)]
    if blend is not None:
        (draft / BLEND).write_text(json_text(_blend_content(blend)), encoding="utf-8")
    wheels = []
    if options.wheel:
        wheels = [write_own_wheel(draft), *(write_installed_wheel(draft, n) for n in _BUNDLED)]
    page = export_page(name, options.out.resolve().name, models, [wheel.name for wheel in wheels])
    (draft / README).write_text(page, encoding="utf-8")
    content = {
        "format": FORMAT,
        "name": name,
        "classes": list(CLASSES),
        "dtype": options.dtype,
        "versions": {
            "hms_ray": __version__,
            "python": ".".join(map(str, sys.version_info[:3])),
            **{package: metadata.version(package) for package in TRACKED_PACKAGES},
        },
        "members": [
            {"name": one.name, "folder": place, "folds": len(one.folds)}
            for one, place in zip(models, places, strict=True)
        ],
        "files": {file.relative_to(draft).as_posix(): file_sha256(file) for file in _files(draft)},
    }
    (draft / EXPORT_FILE).write_text(json_text(content), encoding="utf-8")


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _require_new(out: Path) -> None:
    require_writable(out / EXPORT_FILE)
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(
            "--out must be a new or empty folder",
            got=f"{out}, which has content",
            fix="Give another folder, or remove this one.",
        )


def _models_of_blend(blend: StoredBlend, results: Path, choice: ModelChoice) -> list[TrialModels]:
    fix = "Blend without it: the folder must predict without other files."
    lacking = blend.without_models()
    if lacking:
        raise PredictionError(
            "a member without stored fold models cannot be exported",
            got=", ".join(lacking),
            fix=fix,
        )
    require_weights({member.name: member.keys or {} for member in blend.needed()}, results)
    return [models_of(member, results, fix, choice) for member in blend.needed()]


def _write_models(draft: Path, number: int, models: TrialModels, dtype: str) -> str:
    """Writes one member's folder; returns its place in the export."""
    from hms_ray.train.checkpoint import SAFETENSORS, export_weights

    place = f"models/{number:02d}"
    folder = draft / place
    folder.mkdir(parents=True)
    experiment = models.experiment.model_dump(mode="json")
    for model in (experiment["model"], *(experiment["model"]["branches"] or ())):
        if model["weights_file"] is not None:
            # Weights are those of the folds; the place of a file on this machine is private.
            model["weights_file"] = Path(model["weights_file"]).name
    (folder / EXPERIMENT).write_text(yaml_text({"experiment": experiment}), encoding="utf-8")
    folds = {}
    for fold, stored in models.folds.items():
        weights = f"fold_{fold}{SAFETENSORS}"
        export_weights(stored.weights, folder / weights, half=dtype == "float16")
        folds[str(fold)] = {
            "weights": weights,
            "precision": stored.record["precision"],
            "normalisation": stored.record["normalisation"],
            "numerics": stored.record["made_from"].get("numerics"),
            **_model_source(stored),
        }
    content: dict[str, Any] = {"name": models.name, "n_refits": models.n_refits}
    content |= {"n_seeds": models.n_seeds, "folds": folds}
    (folder / FOLDS).write_text(json_text(content), encoding="utf-8")
    return place


def _model_source(stored: FoldModel) -> dict[str, Any]:
    """The SHA-256 of the source of a model from elsewhere, which is not part of an export."""
    source = stored.record["made_from"].get("model_source")
    return {} if source is None else {"model_source": source}


def _blend_content(blend: StoredBlend) -> dict[str, Any]:
    """A ``blend.json`` for ``read_blend``: the fitted method and its members."""
    return {
        "method": blend.method,
        "fitted": blend.fitted.to_json(),
        "members": [
            {"name": member.name}
            | ({} if member.keys is None else {"keys": {str(f): k for f, k in member.keys.items()}})
            for member in blend.members
        ],
    }


def _skipped(blend: StoredBlend | None) -> list[str]:
    if blend is None or len(blend.needed()) == len(blend.members):
        return []
    n_all, n_used = len(blend.members), len(blend.needed())
    return [f"{n_all - n_used} of {n_all} members have weight 0 and are skipped"]


def _summary(options: ExportOptions, name: str, models: Sequence[TrialModels], n_bytes: int) -> str:
    n_folds = sum(len(one.folds) for one in models)
    members = counted(len(models), "member")
    return (
        f"{options.out}: {name}, {members} with {counted(n_folds, 'fold model')}, "
        f"{n_bytes / 1e6:,.1f} MB"
    )
