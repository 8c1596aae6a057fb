"""Which names the folders below a results folder may have."""

from __future__ import annotations

from typing import Final

from hms_ray.errors import StudyError

STORE_NAME: Final = ".store"
LOCAL: Final = "local"
"""Folder of the logs of experiments that are trained without Ray."""

RESERVED: Final = frozenset({STORE_NAME, LOCAL})


def checked_name(name: str) -> str:
    """The name of a study, ladder or local run, which must be a plain folder name.

    Raises:
        StudyError: if it is not.
    """
    if not name or name in RESERVED or name.startswith(".") or {"/", "\\", "\0"} & set(name):
        raise StudyError(
            "a study's name must be a plain folder name",
            got=repr(name),
            fix="Use a name without slashes or a leading dot, and none of "
            f"{', '.join(sorted(RESERVED))}: --study NAME.",
        )
    return name
