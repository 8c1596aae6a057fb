"""Input files of a pack, and detection of changes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hms_ray.competition.file_errors import EmptyFileError, MissingFileError
from hms_ray.competition.read import require_folder
from hms_ray.errors import DataError
from hms_ray.storage.hashing import digest


@dataclass(frozen=True)
class InputFile:
    """An input file; ``number`` is the id of its recording."""

    number: int
    path: Path
    n_bytes: int
    mtime_ns: int

    def require_unchanged(self) -> None:
        """Checks that the file has not changed since the plan was made.

        Raises:
            DataError: if its size or time differ, or it does not exist any more.
        """
        try:
            status = self.path.stat()
            now = (status.st_size, status.st_mtime_ns)
        except OSError:
            now = (-1, -1)
        if now != (self.n_bytes, self.mtime_ns):
            raise changed_file(self.path)


class ChangedFileError(DataError):
    """A file changed during packing."""


def changed_file(path: Path) -> ChangedFileError:
    """The error for a file that changed during packing."""
    return ChangedFileError(
        "a file must not change while it is packed",
        where=path,
        fix="Run the command again when no other program writes there.",
    )


def input_files(
    folder: Path, directory: str, needed: Iterable[int] | None = None
) -> tuple[InputFile, ...]:
    """The files to pack, sorted by id.

    Args:
        folder: competition folder.
        directory: subfolder of the files.
        needed: ids of recordings, sorted; can be repeated. Default: all files.

    Raises:
        DataError: if the folder is missing or empty, a file name is not an id, or a needed
            file is missing.
    """
    found = {file.number: file for file in _scan(folder, directory)}
    place = folder / directory
    if not found:
        raise EmptyFileError(
            "a folder of recordings must not be empty", where=place, fix="Download it again."
        )
    if needed is None:
        return tuple(found[number] for number in sorted(found))
    numbers = tuple(dict.fromkeys(needed))
    for number in numbers:
        if number not in found:
            raise MissingFileError(
                "a recording's file must exist",
                where=place / f"{number}.parquet",
                fix="Download it again.",
            )
    return tuple(found[number] for number in numbers)


def _scan(folder: Path, directory: str) -> Iterator[InputFile]:
    require_folder(folder)
    place = folder / directory
    if not place.is_dir():
        raise MissingFileError(
            f"a competition folder must contain {directory}/",
            where=folder,
            fix="Download it again, or name another folder.",
        )
    with os.scandir(place) as entries:
        for entry in entries:
            name, _, suffix = entry.name.partition(".")
            if suffix != "parquet":
                continue
            if not name.isdecimal():
                raise DataError("a recording must be named ID.parquet", got=entry.name, where=place)
            status = entry.stat()
            yield InputFile(int(name), place / entry.name, status.st_size, status.st_mtime_ns)


def input_signature(files: Sequence[InputFile]) -> str:
    """A hash of names, sizes and times of the files."""
    return digest([[file.number, file.n_bytes, file.mtime_ns] for file in files])
