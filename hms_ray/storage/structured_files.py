"""JSON and YAML files: read with a reason for every failure, replaced as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import yaml

from hms_ray.errors import StudyError
from hms_ray.storage.atomic import whole_file

# That of libyaml is ten times as fast and writes the same text.
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

Content = TypeVar("Content", dict[str, Any], list[Any])


def read_json(file: Path, expected: type[Content], fix: str | None = None) -> Content:
    """Content of a JSON file that holds a mapping or a list.

    Args:
        file: path of the file.
        expected: ``dict`` or ``list``.
        fix: what the user can do about an unreadable file.

    Raises:
        StudyError: if the file cannot be read, is not JSON or holds something else.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable_file(file, error, fix) from None
    if not isinstance(data, expected):
        raise StudyError(
            f"{file.name} must hold a {'mapping' if expected is dict else 'list'}",
            got=type(data).__name__,
            where=file,
            fix=fix,
        )
    return data


def unreadable_file(file: Path, error: Exception, fix: str | None = None) -> StudyError:
    """The error for a file that cannot be read or lacks a required value."""
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
    """Plain data as YAML, with keys in their own order."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def write_text(file: Path, text: str) -> None:
    """Replaces a file as a whole; an equal one is not written again."""
    content = text.encode()
    if file.is_file() and file.read_bytes() == content:
        return
    with whole_file(file) as draft:
        draft.write_bytes(content)
