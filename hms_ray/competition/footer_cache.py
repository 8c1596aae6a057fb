"""Cache of the footers of signal files between checks.

Opening every file of the full competition data takes most of a minute; reading sizes and
modification times takes a second. A cache that is missing, damaged or of another version
counts as empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from hms_ray.competition.read import SignalFooter
from hms_ray.storage.atomic import whole_file
from hms_ray.storage.hashing import digest

FOOTER_FILE: Final = "footers.json"
FOOTER_VERSION: Final = 1
"""Raise it when the rules for footers change; older caches are then ignored."""


class FooterKey(NamedTuple):
    """Identity of a file at the time its footer was read.

    Attributes:
        file: path relative to the competition folder.
        n_bytes: its size.
        mtime_ns: time of its last modification, in nanoseconds.
    """

    file: str
    n_bytes: int
    mtime_ns: int


Footers = Mapping[FooterKey, SignalFooter]
"""Footers of well-formed files; malformed files are read again at every check."""


def load_footers(cache_dir: str | Path) -> dict[FooterKey, SignalFooter]:
    """The cached footers in a folder; empty if there is no valid cache of this version."""
    try:
        kept = json.loads((Path(cache_dir) / FOOTER_FILE).read_bytes())
        if kept["version"] != FOOTER_VERSION or kept["digest"] != digest(kept["footers"]):
            return {}
        return {
            FooterKey(file, n_bytes, mtime_ns): SignalFooter(n_rows, has_numbers)
            for file, n_bytes, mtime_ns, n_rows, has_numbers in kept["footers"]
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def save_footers(cache_dir: str | Path, footers: Footers) -> None:
    """Cache footers in a folder, which is created if missing; write errors are ignored."""
    rows = [[*key, footer.n_rows, footer.has_numbers] for key, footer in sorted(footers.items())]
    kept = {"version": FOOTER_VERSION, "digest": digest(rows), "footers": rows}
    target = Path(cache_dir) / FOOTER_FILE
    # No flush: a cache that a power failure destroys is made again from the signal files.
    with suppress(OSError), whole_file(target, fsync=False) as draft:
        draft.write_text(json.dumps(kept, separators=(",", ":")), encoding="utf-8")
