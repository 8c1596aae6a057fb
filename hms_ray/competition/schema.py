"""Names, orders and rates of the competition's files.

Source: the data page of the Kaggle competition "HMS - Harmful Brain Activity
Classification" and its files; every order below is that of the files.
"""

from __future__ import annotations

import math
from typing import Final

from hms_ray.config import electrodes

CLASSES: Final = ("Seizure", "LPD", "GPD", "LRDA", "GRDA", "Other")
VOTE_COLUMNS: Final = tuple(f"{name.lower()}_vote" for name in CLASSES)
TARGET_COLUMNS: Final = tuple(f"{name.lower()}_target" for name in CLASSES)
PROBABILITY_COLUMNS: Final = VOTE_COLUMNS
"""Columns of probabilities in a submission; they have the names of the vote columns."""
N_CLASSES: Final = len(CLASSES)
SUBMISSION_COLUMNS: Final = ("eeg_id", *PROBABILITY_COLUMNS)
SUM_TOLERANCE: Final = 1e-5
"""Largest difference of a row's sum from 1.

It accepts six float32 softmax outputs (within 4e-7) and shares written with six decimals
(3e-6), but not half precision (about 1e-3). It changes a row's KL by at most 1e-5.
"""

LABEL_COLUMNS: Final = (
    "eeg_id",
    "eeg_sub_id",
    "eeg_label_offset_seconds",
    "spectrogram_id",
    "spectrogram_sub_id",
    "spectrogram_label_offset_seconds",
    "label_id",
    "patient_id",
    "expert_consensus",
    *VOTE_COLUMNS,
)

ELECTRODES: Final = electrodes.ELECTRODES
EEG_RATE_HZ: Final = 200
EEG_WINDOW_S: Final = 50
EEG_WINDOW_SAMPLES: Final = EEG_RATE_HZ * EEG_WINDOW_S

PANELS: Final = ("LL", "RL", "LP", "RP")
"""Left lateral, right lateral, left parasagittal, right parasagittal."""
SPECTROGRAM_STEP_S: Final = 2
SPECTROGRAM_WINDOW_S: Final = 600
SPECTROGRAM_WINDOW_ROWS: Final = SPECTROGRAM_WINDOW_S // SPECTROGRAM_STEP_S
N_FREQUENCIES: Final = 100
# Bins 3-102 of a 1,024-point transform at 200 Hz, named by two decimals with
# trailing zeros dropped (LL_4.1, not LL_4.10); halves are rounded up (3.125 is 3.13).
FREQUENCIES_HZ: Final = tuple(
    math.floor(k * EEG_RATE_HZ / 1024 * 100 + 0.5) / 100 for k in range(3, 103)
)
SPECTROGRAM_COLUMNS: Final = tuple(
    f"{panel}_{frequency:g}" for panel in PANELS for frequency in FREQUENCIES_HZ
)

VOTE_TIERS: Final = (("1-3", 1, 3), ("4-9", 4, 9), (">=10", 10, None))
"""Disjoint tiers of total votes: name, smallest, largest (None: no limit)."""
