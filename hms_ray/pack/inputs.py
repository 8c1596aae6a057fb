"""The files that a pack is made of, and how changed ones are noticed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hms_ray.competition.file_errors import EmptyFileError, MissingFileError
from hms_ray.errors import DataError
from hms_ray.pack.windows import Windows
from hms_ray.storage.hashing import digest


@dataclass(frozen=True)
class InputFile:
    """A file to pack.

    Attributes:
        number: id of the recording.
        path: where the file is.
        n_bytes: its size.
        mtime_ns: when it was changed last, nanoseconds.
    """

    number: int
    path: Path
    n_bytes: int
    mtime_ns: int

    def require_unchanged(self) -> None:
        """Makes sure that the file still is what the plan was made for.

        Raises:
            DataError: another size or time, or no file any more.
        """
        try:
            status = self.path.stat()
            now = (status.st_size, status.st_mtime_ns)
        except OSError:
            now = (-1, -1)
        if now != (self.n_bytes, self.mtime_ns):
            raise changed_file(self.path)


class ChangedFileError(DataError):
    """A file that is not what it was when packing began."""


def changed_file(path: Path) -> ChangedFileError:
    """The error of a file that is not what it was when packing began."""
    return ChangedFileError(
        "a file must not change while it is packed",
        where=path,
        fix="Run the command again when nothing writes there.",
    )


def input_files(
    folder: Path, directory: str, windows: Windows | None = None
) -> tuple[InputFile, ...]:
    """Files to pack, sorted by id.

    Args:
        folder: competition folder.
        directory: folder of the files within it.
        windows: only the files of these windows; all files where absent.

    Raises:
        DataError: no such folder, nothing in it, a name that is not an id, or
            windows of a file that is not there.
    """
    found = {file.number: file for file in _scan(folder, directory)}
    place = folder / directory
    if not found:
        raise EmptyFileError("a folder of recordings must hold files", got="none", where=place)
    if windows is None:
        return tuple(found[number] for number in sorted(found))
    needed = dict.fromkeys(windows.eeg_ids.tolist())
    for number in needed:
        if number not in found:
            raise MissingFileError("an EEG file must exist", where=place / f"{number}.parquet")
    return tuple(found[number] for number in needed)


def _scan(folder: Path, directory: str) -> Iterator[InputFile]:
    place = folder / directory
    if not place.is_dir():
        raise MissingFileError(f"a competition folder must hold {directory}/", where=folder)
    with os.scandir(place) as entries:
        for entry in entries:
            name, _, suffix = entry.name.partition(".")
            if suffix != "parquet":
                continue
            if not name.isdecimal():
                raise DataError(
                    "a recording's file must be named by its id", got=entry.name, where=place
                )
            status = entry.stat()
            yield InputFile(int(name), place / entry.name, status.st_size, status.st_mtime_ns)


def input_signature(files: Sequence[InputFile]) -> str:
    """A hash that changes whenever names, sizes or times of the files do."""
    return digest([[file.number, file.n_bytes, file.mtime_ns] for file in files])
