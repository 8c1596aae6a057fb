"""What can be wrong within ``train.csv``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from hms_ray.competition.read import LABEL_FILE, OFFSET_COLUMNS
from hms_ray.competition.schema import CLASSES, VOTE_COLUMNS
from hms_ray.errors import Fault


def table_faults(labels: pd.DataFrame) -> Iterator[Fault]:
    """All faults of the label rows, by kind, then in the order of the rows.

    Args:
        labels: as of ``read_labels``.

    Returns:
        Faults of ``train.csv``; the id of a label row is ``<eeg_id>-<eeg_sub_id>``.
    """
    return chain(
        _duplicate_faults(labels),
        _relation_faults(labels, "eeg_id", "an EEG", "spectrogram_id", "spectrogram"),
        _relation_faults(labels, "eeg_id", "an EEG", "patient_id", "patient"),
        _relation_faults(labels, "spectrogram_id", "a spectrogram", "patient_id", "patient"),
        _offset_faults(labels),
        _vote_faults(labels),
        _consensus_faults(labels),
    )


def _duplicate_faults(labels: pd.DataFrame) -> Iterator[Fault]:
    for keys in (["eeg_id", "eeg_sub_id"], ["label_id"]):
        name = f"({', '.join(keys)})" if len(keys) > 1 else keys[0]
        repeated = labels[labels.duplicated(keys, keep=False)]
        for key, n_rows in repeated.groupby(keys).size().items():
            parts = key if isinstance(key, tuple) else (key,)
            yield Fault(
                "duplicate_key",
                f"{name} must be of one row, got {n_rows} rows",
                LABEL_FILE,
                "-".join(map(str, parts)),
            )


def _relation_faults(
    labels: pd.DataFrame, key: str, name: str, other: str, other_name: str
) -> Iterator[Fault]:
    pairs = labels[[key, other]].drop_duplicates().sort_values([key, other])
    pairs = pairs[pairs.duplicated(key, keep=False)]
    for number, several in pairs.groupby(key)[other]:
        message = f"{name} must have one {other_name}, got {', '.join(map(str, several))}"
        yield Fault(f"several_{other_name}s", message, LABEL_FILE, str(number))


def _offset_faults(labels: pd.DataFrame) -> Iterator[Fault]:
    for name in OFFSET_COLUMNS:
        offsets = labels[name]
        for row in _rows(labels, ~(np.isfinite(offsets) & (offsets >= 0))):
            message = f"{name} must be a number of seconds from 0, got {getattr(row, name):g}"
            yield Fault("bad_offset", message, LABEL_FILE, _label_key(row))


def _vote_faults(labels: pd.DataFrame) -> Iterator[Fault]:
    votes = labels[list(VOTE_COLUMNS)]
    for row in _rows(labels, (votes < 0).any(axis=1)):
        negative = [name for name in VOTE_COLUMNS if getattr(row, name) < 0]
        message = f"votes must not be negative, got {getattr(row, negative[0])} in {negative[0]}"
        yield Fault("negative_votes", message, LABEL_FILE, _label_key(row))
    for row in _rows(labels, (votes == 0).all(axis=1)):
        yield Fault(
            "zero_votes", "a label row must have votes, got 0 in all", LABEL_FILE, _label_key(row)
        )


def _consensus_faults(labels: pd.DataFrame) -> Iterator[Fault]:
    consensus = labels["expert_consensus"]
    known = consensus.isin(CLASSES)
    for row in _rows(labels, ~known):
        message = (
            f"expert_consensus must be one of {', '.join(CLASSES)}, got {row.expert_consensus!r}"
        )
        yield Fault("unknown_class", message, LABEL_FILE, _label_key(row))
    votes = labels[list(VOTE_COLUMNS)].to_numpy()
    number = consensus.map({name: k for k, name in enumerate(CLASSES)}).fillna(0).to_numpy(int)
    behind = votes[np.arange(len(votes)), number] < votes.max(axis=1)
    for row in _rows(labels, known & behind):
        counts = [getattr(row, name) for name in VOTE_COLUMNS]
        best, own = int(np.argmax(counts)), CLASSES.index(row.expert_consensus)
        message = (
            f"expert_consensus must have the most votes, got {CLASSES[own]} with {counts[own]} "
            f"where {CLASSES[best]} has {counts[best]}"
        )
        yield Fault("wrong_consensus", message, LABEL_FILE, _label_key(row))


def _rows(labels: pd.DataFrame, mask: pd.Series[bool]) -> Iterator[Any]:
    return labels[mask.to_numpy()].itertuples(index=False)


def _label_key(row: Any) -> str:
    return f"{row.eeg_id}-{row.eeg_sub_id}"
