"""The types of fields by dotted path, read from the annotations of the configurations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel


def annotations_at(model: type[BaseModel], path: str | Sequence[Any]) -> list[Any]:
    """Annotations of the values at a dotted path, without ``Annotated`` and unions.

    Empty if the path leads nowhere. A field that holds an integer or nothing gives
    ``[int, NoneType]``.
    """
    here: list[Any] = [model]
    for part in path.split(".") if isinstance(path, str) else path:
        here = [option for one in here for option in _below(one, str(part))]
    return here


def is_whole(model: type[BaseModel], path: str) -> bool:
    """Whether numbers at a dotted path are integers only."""
    found = annotations_at(model, path)
    return int in found and float not in found


def keys_at(model: type[BaseModel], path: str | Sequence[Any]) -> list[str]:
    """Keys of the configurations at a dotted path."""
    return [name for one in annotations_at(model, path) for name in _fields(one)]


def _below(annotation: Any, part: str) -> Iterator[Any]:
    if part in _fields(annotation):
        yield from _options(annotation.model_fields[part].annotation)
    elif part.isdecimal() and get_origin(annotation) in (list, tuple):
        items = [item for item in get_args(annotation) if item is not Ellipsis]
        item = items[int(part)] if int(part) < len(items) else items[-1]
        yield from _options(item)
    elif get_origin(annotation) is dict:
        yield from _options(get_args(annotation)[1])


def _fields(annotation: Any) -> list[str]:
    known = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return list(annotation.model_fields) if known else []


def _options(annotation: Any) -> Iterator[Any]:
    """The types that an annotation allows."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _options(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for option in get_args(annotation):
            yield from _options(option)
    else:
        yield annotation
