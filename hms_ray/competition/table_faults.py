"""Faults of a label table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from hms_ray.competition.label_table import ID_COLUMNS, LabelTable
from hms_ray.competition.read import NO_LABEL_ID, OFFSET_COLUMNS
from hms_ray.competition.schema import CLASSES, VOTE_COLUMNS
from hms_ray.errors import Fault
from hms_ray.text import shortened_list


def table_faults(table: LabelTable) -> Iterator[Fault]:
    """All faults of the label rows, by kind, then in the order of rows or ids.

    Args:
        table: see ``read_label_table``. Rows with a bad id are not checked further; rows
            with bad votes are not checked for their votes.

    Returns:
        The faults; the id of a label row is ``<eeg_id>-<eeg_sub_id>``.
    """
    keyed, voted = table.keyed(), table.voted()
    found = chain(
        _id_faults(table),
        _duplicate_faults(keyed),
        _relation_faults(keyed, "eeg_id", "an EEG", "spectrogram_id", "spectrogram"),
        _relation_faults(keyed, "eeg_id", "an EEG", "patient_id", "patient"),
        _relation_faults(keyed, "spectrogram_id", "a spectrogram", "patient_id", "patient"),
        _offset_faults(table, keyed),
        _distance_faults(keyed),
        _cell_faults(table, keyed),
        _vote_faults(voted),
        _consensus_faults(voted),
    )
    return (Fault(kind, message, table.name, key) for kind, message, key in found)


Found = Iterator[tuple[str, str, str | None]]
"""Kind, message and id of each fault."""


def _id_faults(table: LabelTable) -> Found:
    keyed = np.zeros(len(table.labels), bool)
    keyed[table.keyed().index] = True
    for name in ID_COLUMNS:
        rule = f"{name} must be a whole number of at least 0"
        if name == "label_id":
            rule += " or empty"
        got = table.written(name)
        for row in _marked(table.labels, table.any_bad([name])):
            key = _label_key(row) if keyed[row.Index] else None
            yield "bad_id", f"{rule}, got {got[row.Index]} in line {row.Index + 2}", key


def _duplicate_faults(labels: pd.DataFrame) -> Found:
    known = labels[labels["label_id"] != NO_LABEL_ID]
    for keys, rows in ((["eeg_id", "eeg_sub_id"], labels), (["label_id"], known)):
        name = f"({', '.join(keys)})" if len(keys) > 1 else keys[0]
        for key, n_rows in _repeated(rows, keys):
            yield "duplicate_key", f"{name} must be unique, got {n_rows} rows with it", key
    once = labels.drop_duplicates(["eeg_id", "eeg_sub_id"])
    offset = OFFSET_COLUMNS[0]
    for key, n_rows in _repeated(once[once[offset].notna()], ["eeg_id", offset]):
        eeg_id, _, seconds = key.partition("-")
        message = f"{offset} must be unique within an EEG, got {n_rows} rows at {seconds} s"
        yield "duplicate_offset", message, eeg_id


def _repeated(labels: pd.DataFrame, keys: list[str]) -> Iterator[tuple[str, int]]:
    repeated = labels[labels.duplicated(keys, keep=False)]
    for key, n_rows in repeated.groupby(keys).size().items():
        parts = key if isinstance(key, tuple) else (key,)
        yield "-".join(f"{p:g}" if isinstance(p, float) else str(p) for p in parts), int(n_rows)


def _relation_faults(
    labels: pd.DataFrame, key: str, name: str, other: str, other_name: str
) -> Found:
    pairs = labels[[key, other]].drop_duplicates().sort_values([key, other])
    pairs = pairs[pairs.duplicated(key, keep=False)]
    for number, others in pairs.groupby(key)[other].agg(list).items():
        message = f"{name} must have one {other_name}, got {shortened_list(others)}"
        yield f"several_{other_name}s", message, str(number)


def _offset_faults(table: LabelTable, keyed: pd.DataFrame) -> Found:
    for name in OFFSET_COLUMNS:
        got = table.written(name)
        for row in _marked(keyed, keyed[name].isna()):
            message = f"{name} must be a number of seconds, at least 0, got {got[row.Index]}"
            yield "bad_offset", message, _label_key(row)


def _distance_faults(labels: pd.DataFrame) -> Found:
    # In the real table every EEG has one position within its spectrogram.
    eeg, spectrogram = OFFSET_COLUMNS
    distance = (labels[spectrogram] - labels[eeg]).round(3)
    groups = distance.groupby([labels["eeg_id"], labels["spectrogram_id"]])
    ends = pd.DataFrame({"low": groups.min(), "high": groups.max()})
    for row in ends[ends["low"] < ends["high"]].reset_index("eeg_id").itertuples(index=False):
        message = (
            f"{spectrogram} minus {eeg} must be the same in all rows of an EEG, "
            f"got {row.low:.15g} s and {row.high:.15g} s"
        )
        yield "offset_mismatch", message, str(row.eeg_id)


def _cell_faults(table: LabelTable, keyed: pd.DataFrame) -> Found:
    cells = {name: table.written(name) for name in VOTE_COLUMNS}
    for row in _marked(keyed, table.any_bad(VOTE_COLUMNS)[keyed.index]):
        name = next(name for name in VOTE_COLUMNS if row.Index in cells[name])
        got = f"{cells[name][row.Index]} in {name}"
        yield "bad_votes", f"votes must be whole numbers, got {got}", _label_key(row)


def _vote_faults(labels: pd.DataFrame) -> Found:
    votes = labels[list(VOTE_COLUMNS)]
    for row in _marked(labels, (votes < 0).any(axis=1)):
        name = next(name for name in VOTE_COLUMNS if getattr(row, name) < 0)
        got = f"{getattr(row, name)} in {name}"
        yield "negative_votes", f"votes must not be negative, got {got}", _label_key(row)
    for row in _marked(labels, (votes == 0).all(axis=1)):
        yield "zero_votes", "a label row must have votes, got a total of 0", _label_key(row)


def _consensus_faults(labels: pd.DataFrame) -> Found:
    consensus = labels["expert_consensus"]
    known = consensus.isin(CLASSES)
    for row in _marked(labels, ~known):
        message = (
            f"expert_consensus must be one of {', '.join(CLASSES)}, got {row.expert_consensus!r}"
        )
        yield "unknown_class", message, _label_key(row)
    votes = labels[list(VOTE_COLUMNS)].to_numpy()
    number = consensus.map({name: k for k, name in enumerate(CLASSES)}).fillna(0).to_numpy(int)
    # In the real table all 5,244 ties went to the first class.
    wrong = known.to_numpy() & (number != votes.argmax(axis=1)) & (votes > 0).any(axis=1)
    for row in _marked(labels, wrong):
        counts = [getattr(row, name) for name in VOTE_COLUMNS]
        yield "wrong_consensus", _consensus_message(counts, row.expert_consensus), _label_key(row)


def _consensus_message(counts: Sequence[int], consensus: str) -> str:
    best, own = int(np.argmax(counts)), CLASSES.index(consensus)
    if counts[own] < counts[best]:
        return (
            f"expert_consensus must be the class with the most votes, got {consensus} with "
            f"{counts[own]}, while {CLASSES[best]} has {counts[best]}"
        )
    return (
        "expert_consensus must be the first class with the most votes, "
        f"got {consensus}, while {CLASSES[best]} has {counts[best]} too"
    )


def _marked(labels: pd.DataFrame, mask: Any) -> Iterator[Any]:
    return labels[np.asarray(mask, bool)].itertuples()


def _label_key(row: Any) -> str:
    return f"{row.eeg_id}-{row.eeg_sub_id}"
