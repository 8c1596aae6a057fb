"""YAML files as plain data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hms_ray.errors import ConfigError

if TYPE_CHECKING:
    from yaml import SafeLoader
else:
    # libyaml is ten times as fast; a study reads its space again for every trial.
    SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(SafeLoader):
    """YAML 1.1 in which 1e-3 is a number and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool)):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be text or a number", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is repeated", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)$"),
    list("-+0123456789."),
)


Marks = dict[str, str]
"""Dotted place in a file -> where it stands, such as ``line 3``."""


def with_mark(text: str, place: str, marks: Marks) -> str:
    """A text with the line of a place, or of the nearest place above it, if it is known."""
    while place and place not in marks:
        place = place.rpartition(".")[0]
    return f"{text}, {marks[place]}" if place else text


def parse_yaml(text: str, where: object, marks: Marks | None = None) -> Any:
    """Plain data from YAML text.

    Args:
        text: one document.
        where: file or place, for messages.
        marks: gets the line of every key and item.

    Raises:
        ConfigError: if the text is not valid YAML, with line and column.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if marks is not None:
            _mark(node, "", marks)
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as error:
        # PyYAML raises ValueError for an impossible date.
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError("a configuration must be valid YAML", got=problem, where=place) from None
    finally:
        loader.dispose()


def _mark(node: yaml.Node, place: str, marks: Marks, above: tuple[yaml.Node, ...] = ()) -> None:
    items: list[tuple[str, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        items = [(str(key.value), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        items = [(str(number), item, item) for number, item in enumerate(node.value)]
    for name, start, below in items:
        path = f"{place}.{name}" if place else name
        marks[path] = f"line {start.start_mark.line + 1}"
        # An alias can lead back to the node that holds it.
        if below not in above:
            _mark(below, path, marks, (*above, below))


def read_mapping(path: str | Path, marks: Marks | None = None) -> dict[Any, Any]:
    """The mapping in a YAML file as plain data; empty for an empty file.

    ``marks`` gets the line of every key and item.

    Raises:
        ConfigError: if the file cannot be read, is not YAML or is not a mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError("a configuration file must be readable", got=reason, where=path) from None
    data = parse_yaml(text, path, marks)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(
            "a configuration file must be a mapping", got=type(data).__name__, where=path
        )
    return data
