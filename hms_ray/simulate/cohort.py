"""Label rows and truth rows of simulated patients, without any signal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.schema import CLASSES, LABEL_COLUMNS, VOTE_COLUMNS
from hms_ray.simulate.options import NO_CONTROLS, Controls, ProfileName
from hms_ray.simulate.patients import JudgedRecording, Streams, plan_patient
from hms_ray.simulate.profiles import MAX_EEGS, MAX_LABELS, MAX_RECORDINGS, PROFILES
from hms_ray.simulate.raters import EXPERT_TIERS, FEATURES, expert_tiers, vote_odds
from hms_ray.simulate.scalp import N_SCALP

LABEL_TABLE_FILE: Final = "labels.csv"
"""Label rows of all patients, if not all of them have signals."""
TRUTH_FILE: Final = "truth.parquet"
"""The truth of each label row; nothing in training reads it."""
TRUTH_COLUMNS: Final = tuple(f"true_{name.lower()}" for name in CLASSES)
"""Odds of a vote for each class, for the tier that judged the row."""
TIER_TRUTH_COLUMNS: Final = {
    group.name: tuple(f"{column}_{group.name}" for column in TRUTH_COLUMNS)
    for group in EXPERT_TIERS
}
"""The same for every tier of vote totals: tier -> columns."""

MAX_PATIENTS: Final = 60_000
N_TEST: Final = 4
SPLITS: Final = ("train", "test")
# x -> a x + b modulo a prime never repeats. The primes are near the largest ids of the real
# files; label ids need a larger one, because there can be more label rows.
_PRIMES: Final = {
    "patient": 65_521,
    "spectrogram": 2_147_483_647,
    "eeg": 4_294_967_291,
    "label": 1_099_511_627_689,
}
_MULTIPLIERS: Final = {
    "patient": 30_103,
    "spectrogram": 1_103_515_245,
    "eeg": 2_654_435_761,
    "label": 679_891_637_639,
}
# Last part of the spawn keys of a patient's random streams.
_PLAN, _BACKGROUND, _VOTES, _SIGNALS, _MONTAGE = range(5)

RecordingRows = tuple[list[dict[str, Any]], list[dict[str, Any]]]
"""Label rows and truth rows, in the same order."""


@dataclass(frozen=True)
class Cohort:
    """The distribution that all patients of a folder are drawn from.

    Attributes:
        seed: at least 0.
        profile: the structure of the folder.
        controls: negative controls.
    """

    seed: int
    profile: ProfileName = "small"
    controls: Controls = NO_CONTROLS

    def patient(self, split: str, index: int) -> list[JudgedRecording]:
        """The recordings of one patient of a split, without signals."""
        streams = Streams(
            *(self._stream(split, index, part) for part in (_PLAN, _BACKGROUND, _VOTES))
        )
        profile = PROFILES[self.profile]
        return plan_patient(streams, profile, self.controls, single=split == "test")

    def signals(self, split: str, index: int, recording: int) -> np.random.Generator:
        """The source of randomness of one recording's signals."""
        return self._stream(split, index, _SIGNALS, recording)

    def electrodes(self, split: str, index: int) -> NDArray[np.int64] | None:
        """(19,) electrode whose signal stands under each scalp electrode's name; None: its own."""
        if "shuffled_montage" not in self.controls:
            return None
        return self._stream(split, index, _MONTAGE).permutation(N_SCALP)

    def rows(self, split: str, index: int, judged: list[JudgedRecording]) -> list[RecordingRows]:
        """Label rows and truth rows of each recording of one patient."""
        patient = MAX_PATIENTS + index if split == "test" else index
        return [
            self._recording_rows(one, patient, patient * MAX_RECORDINGS + position)
            for position, one in enumerate(judged)
        ]

    def _stream(self, split: str, *key: int) -> np.random.Generator:
        spawn_key = (SPLITS.index(split), *key)
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=spawn_key))

    def _recording_rows(
        self, judged: JudgedRecording, patient: int, recording: int
    ) -> RecordingRows:
        features = judged.plan.features
        by_tier = np.stack([vote_odds(features, group) for group in expert_tiers(self.controls)])
        recording_keys = {
            "spectrogram_id": identifier("spectrogram", recording, self.seed),
            "patient_id": identifier("patient", patient, self.seed),
        }
        labels: list[dict[str, Any]] = []
        truth: list[dict[str, Any]] = []
        sub_ids = [0] * MAX_EEGS
        for position, group in enumerate(judged.plan.groups):
            votes = judged.votes[position]
            judgement = {
                "expert_consensus": CLASSES[int(votes.argmax())],
                **dict(zip(VOTE_COLUMNS, votes.tolist(), strict=True)),
            }
            true = _truth(int(judged.tiers[position]), by_tier[:, position], features[position])
            eeg = recording * MAX_EEGS + group.eeg
            eeg_id = identifier("eeg", eeg, self.seed)
            for offset in group.offsets_s:
                sub_id = sub_ids[group.eeg]
                sub_ids[group.eeg] += 1
                times = {
                    "eeg_label_offset_seconds": float(offset),
                    "spectrogram_sub_id": len(labels),
                    "spectrogram_label_offset_seconds": float(group.spectrogram_start_s + offset),
                    "label_id": identifier("label", eeg * MAX_LABELS + sub_id, self.seed),
                }
                keys = {"eeg_id": eeg_id, "eeg_sub_id": sub_id}
                labels.append(keys | recording_keys | times | judgement)
                truth.append(keys | true)
        return labels, truth


def identifier(kind: str, number: int, seed: int) -> int:
    """A unique id for each number of a kind, scattered like the real ids."""
    scattered = _MULTIPLIERS[kind] * (number + 1) + 7_919 * (seed + 1)
    return scattered % _PRIMES[kind]


def simulate_labels(n_patients: int, cohort: Cohort) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The label table of the first training patients, and its truth, in the same order."""
    rows = [
        recording
        for index in range(n_patients)
        for recording in cohort.rows("train", index, cohort.patient("train", index))
    ]
    return labels_of(rows), truth_of(rows)


def labels_of(rows: Iterable[RecordingRows]) -> pd.DataFrame:
    """The label rows of recordings as a table in the competition's format."""
    labels = [label for recording, _ in rows for label in recording]
    return pd.DataFrame(labels, columns=list(LABEL_COLUMNS))


def truth_of(rows: Iterable[RecordingRows]) -> pd.DataFrame:
    """The truth of recordings as a table."""
    return pd.DataFrame([true for _, recording in rows for true in recording])


def _truth(
    tier: int, by_tier: NDArray[np.float64], features: NDArray[np.float64]
) -> dict[str, Any]:
    row: dict[str, Any] = {"tier": EXPERT_TIERS[tier].name}
    row |= dict(zip(TRUTH_COLUMNS, by_tier[tier].tolist(), strict=True))
    for group, odds in zip(EXPERT_TIERS, by_tier, strict=True):
        row |= dict(zip(TIER_TRUTH_COLUMNS[group.name], odds.tolist(), strict=True))
    return row | dict(zip(FEATURES, features.tolist(), strict=True))
