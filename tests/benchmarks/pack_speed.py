"""Speed of packing, reuse, opening and of rows and folds on tables of the real size.

python -m tests.benchmarks.pack_speed [RECORDINGS]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.competition.check import check_folder
from hms_ray.competition.rows import make_rows
from hms_ray.competition.schema import CLASSES, VOTE_COLUMNS
from hms_ray.folds import make_folds
from hms_ray.pack.build import build_pack
from hms_ray.pack.store import open_pack
from hms_ray.pack.verify import verify_pack
from tests.competition_folder import write_competition_folder


def timed(what: str, call: Callable[[], object], note: str = "") -> None:
    start = time.perf_counter()
    call()
    print(f"{what:<44}{time.perf_counter() - start:>10.3f} s  {note}")


def real_sized_labels() -> pd.DataFrame:
    """As many label rows, EEGs and patients as the real table has, numbers drawn."""
    n = 106_800
    rng = np.random.default_rng(0)
    votes = rng.integers(0, 3, (n, 6))
    votes[:, 0] += 1
    labels = pd.DataFrame(votes, columns=list(VOTE_COLUMNS))
    labels["eeg_id"] = np.sort(rng.integers(0, 17_089, n))
    labels["eeg_sub_id"] = labels.groupby("eeg_id").cumcount()
    labels["spectrogram_id"] = labels["eeg_id"] * 11_138 // 17_089
    labels["patient_id"] = labels["eeg_id"] * 1_950 // 17_089
    for name in ("eeg_label_offset_seconds", "spectrogram_label_offset_seconds"):
        labels[name] = 2.0 * labels["eeg_sub_id"]
    labels["expert_consensus"] = np.array(CLASSES)[votes.argmax(axis=1)]
    return labels


def main(n_recordings: int) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as place:
        folder = write_competition_folder(
            Path(place) / "data", n_recordings, eegs_per_patient=1, eegs=False
        )
        start = time.perf_counter()
        pack = build_pack(folder, Path(place) / "packed")
        taken = time.perf_counter() - start
        rate = pack.values.nbytes / 1e6 / taken
        print(f"{f'pack {len(pack.recordings)} recordings':<44}{taken:>10.3f} s  {rate:.0f} MB/s")
        timed("asked again", lambda: build_pack(folder, Path(place) / "packed"))
        timed("open", lambda: open_pack(pack.path))
        timed("verify", lambda: verify_pack(pack.path))
        timed("check, footers only", lambda: check_folder(folder, signals=False))
        timed("check, all values", lambda: check_folder(folder))
    labels = real_sized_labels()
    for unit in ("eeg_votes", "eeg", "label"):
        timed(f"rows of 106,800 label rows, {unit}", lambda u=unit: make_rows(labels, u))  # type: ignore[misc]
    rows = make_rows(labels, "eeg")
    timed("five folds of 17,089 rows", lambda: make_folds(rows, 5))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
