"""The same table in the forms in which people write tables."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.competition.tables import short_name


@dataclass(frozen=True, kw_only=True)
class Form:
    """One way to write a table.

    Attributes:
        suffix: ``.csv`` or ``.parquet``.
        bom: begin a CSV with a byte order mark.
        line_end: of a CSV.
        names: ``ours``, ``short`` (``lpd``), ``title`` (``Lpd_Vote``), or ``spaced``, with spaces
            around them.
        index: ``none``, ``range`` (unnamed, as pandas writes it), ``key`` (the first column).
        floats: write whole numbers, and ids that are, as floating-point numbers.
        shuffled: put the columns in another order and add two.
    """

    suffix: str = ".csv"
    bom: bool = False
    line_end: str = "\n"
    names: str = "ours"
    index: str = "none"
    floats: bool = False
    shuffled: bool = False

    def write(self, folder: Path, table: pd.DataFrame) -> Path:
        """Writes a table, whose first column is its key."""
        file = folder / f"table{self.suffix}"
        frame = table.copy()
        if self.floats:
            for name in frame:
                if frame[name].dtype.kind in "iu":
                    frame[name] = frame[name].astype(np.float64)
                elif name == "row_id":
                    frame[name] = frame[name].str.replace(r"(?<=\d)(?=-|$)", ".0", regex=True)
        frame.columns = pd.Index([self._name(name) for name in frame])
        key = frame.columns[0]
        if self.shuffled:
            frame = frame.assign(note="x", second=1.5)[[*frame.columns[::-1], "note", "second"]]
            frame = frame[[*frame.columns[2:], *frame.columns[:2]]]
        if self.index == "key":
            frame = frame.set_index(key)
        keeps_index = self.index != "none"
        if self.suffix == ".parquet":
            frame.to_parquet(file, index=keeps_index)
            return file
        text = frame.to_csv(index=keeps_index, lineterminator=self.line_end)
        file.write_bytes((codecs.BOM_UTF8 if self.bom else b"") + text.encode())
        return file

    def _name(self, name: str) -> str:
        return {
            "ours": name,
            "short": short_name(name),
            "title": name.title(),
            "spaced": f" {name} ",
        }[self.names]


FORMS: Mapping[str, Form] = {
    "csv": Form(),
    "parquet": Form(suffix=".parquet"),
    "excel": Form(bom=True, line_end="\r\n"),
    "pandas csv": Form(index="range"),
    "pandas parquet": Form(suffix=".parquet", index="range"),
    "csv by key": Form(index="key", floats=True),
    "parquet by key": Form(suffix=".parquet", index="key"),
    "short names": Form(names="short", shuffled=True),
    "titles": Form(names="title"),
    "spaces": Form(names="spaced"),
    "floats in csv": Form(floats=True),
    "floats in parquet": Form(suffix=".parquet", floats=True, shuffled=True),
}
