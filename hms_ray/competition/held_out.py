"""The patients of the hold-out: set aside before anything else, scored at the end."""

from __future__ import annotations

import hashlib
import math
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.schema import N_CLASSES, VOTE_COLUMNS
from hms_ray.errors import ConfigError
from hms_ray.text import counted

_MANY_VOTES: Final = 10
"""Rows with as many votes are the competition's test rows: the smallest score tier that the
hold-out must represent."""


def held_out_patients(labels: pd.DataFrame, share: float, seed: int) -> NDArray[np.int64]:
    """The patients that a study sets aside.

    Patients are divided into strata: with a label row of >= 10 votes or without, and by
    their commonest class among their distinct (EEG, votes), of equally common ones the
    first in the order of ``CLASSES``. In a stratum of n patients, ordered by the SHA-256 of
    ``"<seed>:<patient_id>"``, the first ``floor(share * n + 0.5)`` are held out. So a larger
    share holds out the same patients and more.

    Args:
        labels: all label rows of a competition folder, see ``read_labels``.
        share: of the patients of each stratum, 0 to 0.5.
        seed: of the order.

    Returns:
        Sorted patient ids, int64 (n,); empty if the share is 0.

    Raises:
        ConfigError: if every stratum is too small for one patient.
    """
    if share == 0:
        return np.empty(0, np.int64)
    held_out = [
        patient
        for _, patients in _strata(labels).groupby(level=0)
        for patient in _ordered(patients.tolist(), seed)[: math.floor(share * len(patients) + 0.5)]
    ]
    if not held_out:
        raise ConfigError(
            "the hold-out must have at least one patient",
            got=f"{share:g} of {counted(labels['patient_id'].nunique(), 'patient')}, less than "
            "half a patient in every stratum of votes and class",
            fix="Raise data.holdout, or use more patients.",
        )
    return np.sort(np.array(held_out, np.int64))


def _strata(labels: pd.DataFrame) -> pd.Series[int]:
    """The patients, indexed by the number of their stratum."""
    distinct = labels.drop_duplicates(["eeg_id", *VOTE_COLUMNS])
    votes = distinct[list(VOTE_COLUMNS)].to_numpy()
    table = pd.DataFrame(
        {
            "patient": distinct["patient_id"].to_numpy(np.int64),
            "class": votes.argmax(axis=1),
            "many": votes.sum(axis=1) >= _MANY_VOTES,
        }
    )
    counts = pd.crosstab(table["patient"], table["class"]).reindex(
        columns=range(N_CLASSES), fill_value=0
    )
    many = table.groupby("patient")["many"].any()
    # argmax takes the first of equally common classes.
    numbers = counts.to_numpy().argmax(axis=1) + N_CLASSES * many.to_numpy()
    return pd.Series(counts.index.to_numpy(), index=numbers)


def _ordered(patients: list[int], seed: int) -> list[int]:
    return sorted(
        patients, key=lambda patient: hashlib.sha256(f"{seed}:{patient}".encode()).digest()
    )
