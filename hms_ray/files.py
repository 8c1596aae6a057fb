"""Files that are whole or absent, whoever writes or dies."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

DRAFT_PREFIX: Final = ".draft-"
"""How the name of a draft begins, which a kill may leave behind."""


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
