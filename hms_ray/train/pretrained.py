"""The file of a model's pretrained weights: given, in a folder, or from timm's hub."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import timm

from hms_ray.config.experiment import ModelConfig
from hms_ray.errors import ModelError
from hms_ray.storage.hashing import file_sha256
from hms_ray.text import closest, shortened_list

HUB_TIMEOUT_S: Final = 5.0
"""Time that the hub has to answer a first request; its client would retry for 50 s."""

HUB_FILES: Final = ("model.safetensors", "pytorch_model.bin")
"""Names of weights files in timm's hub, in timm's order."""

SUFFIXES: Final = (".safetensors", ".pth", ".pt", ".bin", ".npz")
"""Endings of weights files in a folder; the first that exists is used."""

OFFLINE_FIX: Final = (
    "Set model.weights_file to a local timm checkpoint of this model, or to a folder with one "
    "file per model (download them on a machine that reaches the hub), or set "
    "model.pretrained: false."
)


@dataclass(frozen=True)
class PretrainedWeights:
    """The pretrained weights that a model starts from.

    Attributes:
        name: the model's name with its tag, such as ``efficientnet_b0.ra_in1k``.
        file: where they are.
        sha256: of the file's content, hex.
    """

    name: str
    file: Path
    sha256: str


def pretrained_weights(config: ModelConfig) -> PretrainedWeights | None:
    """The weights that a model starts from; None without ``pretrained``.

    Weights of the hub are downloaded if they are not in its cache. The file is hashed once
    while its path, size and time stay.

    Raises:
        ModelError: if the name is unknown, or the file cannot be found, downloaded or read.
    """
    if not config.pretrained:
        return None
    file = weights_path(config)
    return PretrainedWeights(tagged_name(config.name), file, _sha256(file))


def weights_fingerprint(config: ModelConfig) -> str | None:
    """SHA-256 (hex) of the file that ``weights_file`` leads to; None if it is not set.

    Raises:
        ModelError: if there is no such file, or it cannot be read.
    """
    return None if config.weights_file is None else _sha256(given_file(config))


def tagged_name(name: str) -> str:
    """A model's name with the tag of its weights; without a tag, timm's default one.

    Raises:
        ModelError: if the name is unknown.
    """
    return ".".join(filter(None, (name.split(".")[0], pretrained_config(name).tag)))


def weights_path(config: ModelConfig) -> Path:
    """The file of the pretrained weights, downloaded if needed; for errors see above."""
    if config.weights_file is not None:
        return given_file(config)
    return _hub_file(config.name, pretrained_config(config.name))


def given_file(config: ModelConfig) -> Path:
    """The file that ``weights_file`` leads to: itself, or the model's file in that folder.

    Raises:
        ModelError: if there is none.
    """
    path = Path(config.weights_file or "")
    if not path.is_dir():
        if not path.is_file():
            raise unreadable_weights(path, "no such file")
        return path
    name = tagged_name(config.name)
    for suffix in SUFFIXES:
        if (path / f"{name}{suffix}").is_file():
            return path / f"{name}{suffix}"
    found = sorted(file.name for file in path.iterdir() if file.suffix in SUFFIXES)
    wanted = f"{name}{SUFFIXES[0]}"
    raise ModelError(
        f"a folder of model.weights_file must have a file for each model: {wanted}",
        got=f"{shortened_list(found)}{closest(wanted, found)}" if found else "no weights files",
        where=path,
        fix=f"Name the file {name} with one of the endings {', '.join(SUFFIXES)}.",
    )


def pretrained_config(name: str) -> Any:
    """Timm's ``PretrainedCfg`` of a model: tag, input size, classes, location of weights.

    Raises:
        ModelError: if timm does not have the name or its tag.
    """
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        raise ModelError(
            "model.name must be a timm model",
            got=name,
            fix=f"Did you mean {', '.join(close)}?" if close else "See timm.list_models().",
        )
    try:
        pretrained = timm.get_pretrained_cfg(name)
    except RuntimeError:
        tags = [
            tag
            for tag in timm.list_pretrained(f"{architecture}*")
            if tag.split(".")[0] == architecture
        ]
        raise ModelError(
            "the part of model.name after the dot must be a tag that timm knows",
            got=name,
            fix=f"Use one of: {', '.join(tags)}." if tags else "Use the name without a tag.",
        ) from None
    return pretrained or timm.models.PretrainedCfg()


def _sha256(file: Path) -> str:
    try:
        status = os.stat(file)
        return _cached_sha256(file, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise unreadable_weights(file, error.strerror) from None


@lru_cache(maxsize=64)
def _cached_sha256(file: Path, size: int, mtime_ns: int) -> str:
    """Cached while size and time stay: every fold of every trial needs it."""
    return file_sha256(file)


def _hub_file(name: str, pretrained: Any) -> Path:
    """The file that timm would load: from the cache of the hub, else downloaded.

    An offline machine fails within seconds.
    """
    if pretrained.hf_hub_id is None:
        return _download_file(name, pretrained.url)
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    repository, _, revision = pretrained.hf_hub_id.partition("@")
    names = [pretrained.hf_hub_filename] if pretrained.hf_hub_filename else list(HUB_FILES)
    for file in names:
        # A cached file is used as it is, so that one machine has one key while it is offline.
        cached = try_to_load_from_cache(repository, file, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached)
    _require_online(name, constants.ENDPOINT)
    for file in names:
        try:
            return Path(hf_hub_download(repository, file, revision=revision or None))
        except EntryNotFoundError:
            continue
        except Exception as error:
            # The classes of exceptions depend on the client's version.
            raise hub_failed(name, first_line(error)) from error
    raise hub_failed(name, f"no {' or '.join(names)} in {repository}")


def _download_file(name: str, url: str | None) -> Path:
    """The file of one of the few models that are not in the hub."""
    if not url:
        raise ModelError(
            "model.pretrained needs a model with pretrained weights",
            got=f"{name}, which has none in timm",
            fix="Use another model.name, set model.weights_file, or set model.pretrained: false.",
        )
    from timm.models import _hub

    if not (Path(_hub.get_cache_dir()) / url.rsplit("/", 1)[-1]).is_file():
        _require_online(name, url)
    try:
        return Path(_hub.download_cached_file(url))
    except Exception as error:
        raise hub_failed(name, first_line(error)) from error


def _require_online(name: str, url: str) -> None:
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    try:
        get_session().head(url, timeout=HUB_TIMEOUT_S)
    except Exception as error:
        raise hub_failed(name, f"no answer from {url} ({first_line(error)})") from None


def hub_failed(name: str, reason: str) -> ModelError:
    """The error for weights that are neither cached nor downloadable."""
    return ModelError(
        "pretrained weights must be available from timm's hub",
        got=reason,
        where=name,
        fix=OFFLINE_FIX,
    )


def unreadable_weights(
    file: object, reason: str | None, fix: str = "Check the path."
) -> ModelError:
    """The error for a weights file that cannot be read."""
    return ModelError("model.weights_file must be a readable file", got=reason, where=file, fix=fix)


def first_line(error: BaseException) -> str:
    """The first two lines of an error's text as one, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2]) if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
