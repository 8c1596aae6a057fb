"""Damaged label tables, and checks of the faults that are reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from hms_ray.errors import Fault


def change_labels(file: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Replaces a ``train.csv`` with a changed one."""
    change(pd.read_csv(file)).to_csv(file, index=False)


def set_label(file: Path, line: int, **values: object) -> str:
    """Changes one row of a ``train.csv`` and returns the id that it had before."""
    labels = pd.read_csv(file)
    key = f"{labels.loc[line, 'eeg_id']}-{labels.loc[line, 'eeg_sub_id']}"
    for name, value in values.items():
        labels[name] = labels[name].astype(object)
        labels.loc[line, name] = value
    labels.to_csv(file, index=False)
    return key


def assert_faults(faults: Sequence[Fault], *expected: tuple[str, str | None, str]) -> None:
    """Checks the kind of each fault, its place, and a part of its message.

    A place is a file, an id, or None for a fault without an id. A recording's file and its id
    go together; the other faults are of the label table.
    """
    assert [fault.kind for fault in faults] == [kind for kind, _, _ in expected]
    for fault, (_, place, part) in zip(faults, expected, strict=True):
        assert part in fault.message
        if place is None:
            assert fault.id is None
        elif "/" in place or "." in place:
            stem = Path(place).stem
            named = stem.isdecimal() and str(int(stem)) == stem
            assert (fault.file, fault.id) == (place, stem if named else None)
        else:
            assert fault.id == place
            assert fault.file == "train.csv" or str(fault.file).endswith(f"/{place}.parquet")
