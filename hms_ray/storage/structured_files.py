"""The small text files of a study: read with a reason, replaced as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import yaml

from hms_ray.errors import StudyError
from hms_ray.storage.atomic import whole_file

Kind = TypeVar("Kind", dict[str, Any], list[Any])


def read_json(file: Path, kind: type[Kind], fix: str | None = None) -> Kind:
    """Content of a JSON file that holds a mapping or a list.

    Args:
        file: must exist.
        kind: ``dict`` or ``list``.
        fix: what the user can do about a damaged file.

    Raises:
        StudyError: where the file cannot be read, is no JSON or holds another kind.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(file, error, fix) from None
    if not isinstance(data, kind):
        raise StudyError(
            f"{file.name} must hold a {'mapping' if kind is dict else 'list'}",
            got=type(data).__name__,
            where=file,
            fix=fix,
        )
    return data


def damaged(file: Path, error: Exception, fix: str | None = None) -> StudyError:
    """What is said of a file that cannot be read, or lacks what must be in it."""
    return StudyError(
        f"{file.name} must be readable",
        got=f"{type(error).__name__}: {error}",
        where=file,
        fix=fix,
    )


def json_text(data: Any) -> str:
    """Plain data as JSON; NaN is refused."""
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def yaml_text(data: Any) -> str:
    """Plain data as YAML, in its own order."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def write_text(file: Path, text: str) -> None:
    """Replaces a file as a whole, and only where it changes."""
    content = text.encode()
    if file.is_file() and file.read_bytes() == content:
        return
    with whole_file(file) as draft:
        draft.write_bytes(content)
