"""Names of columns that the user gave, for all files or for single ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hms_ray.blend.row_keys import KEY_NAMES
from hms_ray.competition.tables import CLASS_NAMES, Columns, short_name
from hms_ray.errors import PredictionError
from hms_ray.text import closest

OTHER_NAMES: Final = ("patient_id", "total_votes", "fold")
_FOR_FILE: Final = re.compile(r"(?P<file>[^=]+?\.(?:csv|parquet)):(?P<pairs>.*)", re.IGNORECASE)


@dataclass(frozen=True)
class ColumnNames:
    """Our name of a column -> the name in files.

    Attributes:
        everywhere: for all files.
        of_files: file, as the user wrote it -> its own names, which come first.
    """

    everywhere: Columns = field(default_factory=dict)
    of_files: Mapping[str, Columns] = field(default_factory=dict)

    def of(self, file: str | Path) -> dict[str, str]:
        """The names for a file."""
        own = [names for known, names in self.of_files.items() if _is_same(known, file)]
        found = dict(self.everywhere)
        for names in own:
            found |= names
        return found

    def require_known(self, files: Sequence[str | Path], option: str) -> None:
        """Raises ``PredictionError`` if names are given for a file that is not among these."""
        for known in self.of_files:
            if not any(_is_same(known, file) for file in files):
                raise PredictionError(
                    f"{option} must name a file of this command",
                    got=f"{known}{closest(known, map(str, files))}",
                    fix="Write the file as in the command, or its name alone.",
                )


def _is_same(known: str, file: str | Path) -> bool:
    """Whether a file was written as this path, or as the end of its path."""
    parts, own = Path(file).parts, Path(known).parts
    return parts[-len(own) :] == own or Path(file).resolve() == Path(known).resolve()


def parse_columns(arguments: Sequence[str]) -> ColumnNames:
    """The names of arguments ``row_id=key,seizure=p_seizure`` and ``FILE:seizure=p0,lpd=p1``.

    Raises:
        PredictionError: if a pair has no ``=``, an unknown name, or a name given twice.
    """
    everywhere: dict[str, str] = {}
    of_files: dict[str, dict[str, str]] = {}
    for argument in arguments:
        match = _FOR_FILE.fullmatch(argument.strip())
        columns = everywhere if match is None else of_files.setdefault(match["file"], {})
        for pair in (argument if match is None else match["pairs"]).split(","):
            _add_pair(columns, pair)
    return ColumnNames(everywhere, of_files)


def _add_pair(columns: dict[str, str], pair: str) -> None:
    known = (*KEY_NAMES, *OTHER_NAMES, *CLASS_NAMES)
    ours, equals, theirs = (piece.strip() for piece in pair.partition("="))
    name = short_name(ours.lower())
    if not equals or not theirs or name not in known:
        raise PredictionError(
            "columns must be given as OURS=THEIRS or FILE:OURS=THEIRS, "
            f"with OURS one of {', '.join(known)}",
            got=pair,
            fix="Give them for example as: mine.csv:row_id=key,seizure=p0",
        )
    if columns.get(name, theirs) != theirs:
        raise PredictionError(
            "a column must be given once",
            got=f"{columns[name]} and {theirs} for {name}",
            fix="Remove one of them.",
        )
    columns[name] = theirs
