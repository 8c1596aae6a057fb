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
    """Checks the kind of each fault, its file or id, and a part of its message."""
    assert [fault.kind for fault in faults] == [kind for kind, _, _ in expected]
    for fault, (_, where, part) in zip(faults, expected, strict=True):
        assert where in (fault.file, fault.id)
        assert part in fault.message
