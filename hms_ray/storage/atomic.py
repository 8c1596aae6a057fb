"""Files that are whole or absent, whoever writes or dies."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hms_ray.errors import ConfigError

DRAFT_PREFIX: Final = ".draft-"
"""How the name of a draft begins, which a kill may leave behind."""


def require_writable(path: str | Path) -> None:
    """Refuses a file that could not be written, before anything is computed for it.

    Raises:
        ConfigError: where the path is a folder, or below a file or a folder that cannot
            be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError("the file to write must not be a folder", got=str(path))
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ConfigError(
            "the file to write must be in a folder that can be written to",
            got=f"{above}, which {'is read-only' if above.is_dir() else 'is a file'}",
        )


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A draft to write in place of a file, which changes as a whole or not at all.

    The draft's name is random: on shared storage, processes of two containers may
    have the same number. It says nothing of the file's, so no reader that goes by
    names (TensorBoard, a glob) takes a draft for the file.

    Args:
        path: the file; missing folders above it are made.

    Yields:
        A path in the same folder, to be written once.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{DRAFT_PREFIX}{uuid.uuid4().hex}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
