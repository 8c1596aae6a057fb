"""Digests of plain data and of tables."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pandas as pd
from numpy.typing import NDArray


def digest(data: Any) -> str:
    """SHA-256 (hex) of plain data, independent of the order of keys.

    Args:
        data: anything that JSON can hold; NaN and infinity are refused.
    """
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def table_fingerprint(table: pd.DataFrame) -> str:
    """SHA-256 (hex) of columns of text and numbers; the index does not count."""
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
