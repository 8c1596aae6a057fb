"""Digests of plain data, tables and files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray


def digest(data: Any) -> str:
    """SHA-256 (hex) of plain data, independent of the order of keys.

    Args:
        data: JSON-serialisable data.

    Raises:
        ValueError: if it contains NaN or infinity.
    """
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: str | Path) -> str:
    """SHA-256 (hex) of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def table_fingerprint(table: pd.DataFrame) -> str:
    """SHA-256 (hex) of a table's columns of text and numbers, without its index."""
    content = hashlib.sha256()
    for name in table.columns:
        values: NDArray[Any] = table[name].to_numpy()
        if values.dtype.kind in "iub":
            data = b"int\0" + values.astype("<i8").tobytes()
        elif values.dtype.kind == "f":
            data = b"float\0" + values.astype("<f8").tobytes()
        else:
            data = b"text\0" + "\0".join(map(str, values)).encode()
        content.update(f"{name}\0{len(data)}\0".encode())
        content.update(data)
    return content.hexdigest()
