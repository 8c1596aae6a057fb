"""YAML files as plain data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from hms_ray.errors import ConfigError


class _Loader(yaml.SafeLoader):
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


def parse_yaml(text: str, where: object) -> Any:
    """Plain data from YAML text.

    Raises:
        ConfigError: if the text is not valid YAML, with line and column.
    """
    try:
        # _Loader is a SafeLoader; ruff cannot see that.
        return yaml.load(text, Loader=_Loader)  # noqa: S506
    except (yaml.YAMLError, ValueError) as error:
        # PyYAML raises ValueError for an impossible date.
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError("a configuration must be valid YAML", got=problem, where=place) from None


def read_mapping(path: str | Path) -> dict[Any, Any]:
    """The mapping in a YAML file as plain data; empty for an empty file.

    Raises:
        ConfigError: if the file cannot be read, is not YAML or is not a mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError("a configuration file must be readable", got=reason, where=path) from None
    data = parse_yaml(text, path)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(
            "a configuration file must be a mapping", got=type(data).__name__, where=path
        )
    return data
