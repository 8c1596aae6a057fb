"""What a file holds that is not what its name promises."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Final, NamedTuple

PARQUET: Final = "a parquet file"
_HEAD_BYTES: Final = 4096


class Content(NamedTuple):
    """The content of a file, and what to do if it should be something else."""

    name: str
    fix: str | None = None


_AGAIN: Final = "Download the file itself; the site may require a login."
_UNPACK: Final = "Unpack it."
_UTF_8: Final = "Save it as text in UTF-8."
_SIGNS: Final = {
    b"version https://git-lfs.github.com/spec/": Content(
        "a git-LFS pointer", "Fetch the file itself: git lfs pull."
    ),
    b"\x1f\x8b": Content("a gzip archive", _UNPACK),
    b"PK\x03\x04": Content("a zip archive", _UNPACK),
    b"\x93NUMPY": Content("a NumPy array"),
    b"\x89HDF": Content("an HDF5 file"),
    b"PAR1": Content(PARQUET),
    b"\xff\xfe": Content("text in UTF-16", _UTF_8),
    b"\xfe\xff": Content("text in UTF-16", _UTF_8),
}
_PAGES: Final = {
    b"<!doctype html": Content("an HTML page", _AGAIN),
    b"<html": Content("an HTML page", _AGAIN),
    b"<?xml": Content("an XML page", _AGAIN),
    b"{": Content("JSON text", _AGAIN),
}


def content_of(path: Path) -> Content | None:
    """What the first bytes of a file show; None for other binary content.

    Raises:
        OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head.strip():
        return Content("an empty file")
    begin = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    for signs, text in ((_SIGNS, head), (_PAGES, begin)):
        for sign, content in signs.items():
            if text.startswith(sign):
                return content
    try:
        lines = codecs.getincrementaldecoder("utf-8")().decode(head).splitlines()
    except UnicodeDecodeError:
        return None
    if b"\0" in head or len(lines) < 2:
        return None
    return Content("CSV text" if any(mark in lines[0] for mark in ",;\t") else "text")
