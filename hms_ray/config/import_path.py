"""Models from elsewhere: ``package.module:function`` as the name of a model, and its source.

The source is found and read without importing it: imported code runs.
"""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from typing import Final

from hms_ray.errors import ModelError
from hms_ray.storage.hashing import digest, file_sha256

_FORM: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
INSTALL_FIX: Final = (
    "Install its package, or put its folder on PYTHONPATH, on every machine that trains or "
    "predicts."
)


def is_import_path(name: str) -> bool:
    """Whether a model's name leads to a function; names of timm have no colon."""
    return ":" in name


def well_formed(name: str) -> bool:
    """Whether a name is ``package.module:function``."""
    return _FORM.fullmatch(name) is not None


@lru_cache
def source_sha256(name: str) -> str:
    """SHA-256 (hex) of the source of a model from elsewhere, read once per process.

    Of a module by itself, its file; of a module in a package, the names and contents of all
    ``.py`` files of the outermost package, since they may import each other.

    Args:
        name: ``package.module:function``.

    Raises:
        ModelError: if no source file is found.
    """
    top = name.split(":")[0].split(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    if folders:
        files = {
            file.relative_to(folder).as_posix(): file
            for folder in folders
            for file in sorted(Path(folder).rglob("*.py"))
        }
        if files:
            return digest({place: file_sha256(file) for place, file in files.items()})
    elif spec is not None and spec.origin is not None and Path(spec.origin).is_file():
        return file_sha256(spec.origin)
    raise ModelError(
        "model.name must lead to a source file",
        got=f"no source of {top} on this machine",
        where=name,
        fix=INSTALL_FIX,
    )
