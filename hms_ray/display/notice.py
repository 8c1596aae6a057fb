"""The text of an event of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Notice:
    """The text of an event.

    Attributes:
        text: one line of any length, to be logged and printed.
        passing: whether it is printed only in a pipe that has been quiet.
        level: of its record in the log.
        details: logged below the text and not printed.
    """

    text: str
    passing: bool = False
    level: int = logging.INFO
    details: str = ""
