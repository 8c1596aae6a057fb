"""Time and peak memory of checking label tables of the real size; time saved by the cache;
time that test recordings add.

HMS_REAL_DATA=DIR python -m tests.benchmarks.check_speed [FILES]

The command checks the table of HMS_REAL_DATA unchanged and with faults in two of three rows;
the memory is that of the whole process. Then a folder of FILES (2,000) tiny files is checked
twice with a cache of footers. Last, a folder with 200 EEGs and spectrograms in training and
200 in test, all of the real size, is checked with and without the test part, in turn.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.competition.check import check_folder
from hms_ray.competition.footer_cache import FOOTER_FILE
from hms_ray.competition.schema import CLASSES, VOTE_COLUMNS
from tests.benchmarks.pack_speed import real_sized_labels
from tests.competition_folder import (
    write_competition_folder,
    write_eeg,
    write_spectrogram,
)

COMMAND = """
import sys
from hms_ray.cli.main import main
main(sys.argv[1:])
status = open("/proc/self/status", encoding="ascii").read()
print(status.split("VmHWM:")[1].split()[0], file=sys.stderr)
"""
"""Runs the command and prints its peak memory in KiB. VmHWM is its own peak; that of rusage
includes its parent's."""


def cpu_seconds() -> float:
    """CPU seconds of all finished child processes, which a busy machine does not distort."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(name: str, table: Path, *options: str) -> None:
    """Runs the command and prints one line of the table."""
    command = [sys.executable, "-c", COMMAND, "check", "--labels", str(table), *options]
    start, busy = time.perf_counter(), cpu_seconds()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken, busy = time.perf_counter() - start, cpu_seconds() - busy
    n_faults = f"{len(json.loads(done.stdout)['faults']):,}" if options else "-"
    print(
        f"{name:<28}{' '.join(options) or 'text':<8}{taken:>7.2f} s{busy:>7.2f} s of CPU"
        f"{int(done.stderr.split()[-1]) / 1024:>8.0f} MiB"
        f"{done.stdout.count(chr(10)):>8,} lines{n_faults:>8} faults"
    )


def with_faults(labels: pd.DataFrame) -> pd.DataFrame:
    """Labels with about one fault in two of three rows, of ten kinds."""
    rng = np.random.default_rng(0)
    labels = labels.copy()
    damage = rng.integers(0, 15, len(labels))
    votes = labels[list(VOTE_COLUMNS)].astype(object)
    votes[damage == 0] = 0
    votes.loc[damage == 1, "gpd_vote"] = -1
    votes.loc[damage == 2, "lpd_vote"] = "many"
    votes.loc[damage == 3, "other_vote"] = None
    votes.loc[damage == 4, "grda_vote"] = 0.5
    labels[list(VOTE_COLUMNS)] = votes
    labels.loc[damage == 5, "expert_consensus"] = "PLED"
    labels.loc[damage == 6, "expert_consensus"] = "GRDA"
    labels.loc[damage == 7, "eeg_label_offset_seconds"] = -2.0
    labels.loc[damage == 8, "patient_id"] = rng.integers(0, 9_999, (damage == 8).sum())
    labels.loc[damage == 9, "spectrogram_label_offset_seconds"] += 3.0
    return pd.concat([labels, labels[damage == 10]])


def real_labels() -> pd.DataFrame:
    """The real table, or a random one of its size."""
    place = os.environ.get("HMS_REAL_DATA")
    if place:
        return pd.read_parquet(Path(place) / "train_labels.parquet")
    print("HMS_REAL_DATA is not set: using a random table of the real size")
    labels = real_sized_labels()
    return labels.assign(spectrogram_sub_id=0, label_id=range(len(labels)))


def write_tiny_files(folder: Path, n_files: int) -> None:
    """Writes EEGs and spectrograms of two rows each; only the first of each is listed."""
    eeg, spectrogram = np.ones((2, 20), np.float32), np.ones((2, 400), np.float32)
    for name, write, values in (
        ("train_eegs", write_eeg, eeg),
        ("train_spectrograms", write_spectrogram, spectrogram),
    ):
        (folder / name).mkdir(parents=True)
        first = folder / name / "0.parquet"
        write(first, values)
        for number in range(1, n_files // 2):
            (folder / name / f"{number}.parquet").write_bytes(first.read_bytes())
    votes = dict.fromkeys(VOTE_COLUMNS, 1)
    ids = ("eeg_id", "eeg_sub_id", "eeg_label_offset_seconds", "spectrogram_id", "label_id")
    more = ("spectrogram_sub_id", "spectrogram_label_offset_seconds", "patient_id")
    row = {**dict.fromkeys((*ids, *more), 0), "expert_consensus": CLASSES[0], **votes}
    pd.DataFrame([row]).to_csv(folder / "train.csv", index=False)


def measure_test_part(folder: Path, n: int = 200, rounds: int = 7) -> None:
    """Prints the time that n test recordings add to a check of n recordings of training."""
    write_competition_folder(folder, n_patients=n, eegs_per_patient=1, nan_gaps=False)
    table = pd.DataFrame(
        {"spectrogram_id": range(n), "eeg_id": range(n, 2 * n), "patient_id": range(n)}
    )
    table.to_csv(folder / "test.csv", index=False)
    sample = pd.read_csv(folder / "sample_submission.csv").loc[[0] * n]
    sample.assign(eeg_id=table["eeg_id"].to_numpy()).to_csv(
        folder / "sample_submission.csv", index=False
    )
    for name, numbers in (("eeg", table["eeg_id"]), ("spectrogram", table["spectrogram_id"])):
        place = folder / f"test_{name}s"
        (written,) = place.iterdir()
        content = written.read_bytes()
        written.unlink()
        for number in numbers:
            (place / f"{number}.parquet").write_bytes(content)
    for signals in (False, True):
        taken: dict[bool, list[float]] = {False: [], True: []}
        for number in range(2 * rounds + 2):
            with_test = number % 2 == 1
            start = time.process_time()
            assert check_folder(folder, signals=signals, test=with_test).ok
            if number > 1:  # The first ones put the files into the page cache.
                taken[with_test].append(time.process_time() - start)
        ratios = np.divide(taken[True], taken[False])
        name = "all values" if signals else "footers only"
        print(
            f"check of {n} + {n} recordings, {name}: {np.median(taken[False]):.3f} s of CPU, "
            f"{np.median(taken[True]):.3f} s with the {n} in test, ratio "
            f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
        )


def main(n_files: int) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as place:
        labels = real_labels()
        tables = {"unchanged": labels, "damaged": with_faults(labels)}
        for name, table in tables.items():
            file = Path(place) / "train.csv"
            table.to_csv(file, index=False)
            for options in ((), ("--json",)):
                measure(f"{len(table):,} rows, {name}", file, *options)
        folder, cache = Path(place) / "folder", Path(place) / "cache"
        write_tiny_files(folder, n_files)
        check_folder(folder, signals=False)  # puts the files into the page cache
        for state in ("empty", "full"):
            start = time.perf_counter()
            check_folder(folder, signals=False, cache_dir=cache)
            taken = time.perf_counter() - start
            print(f"check of {n_files:,} files, {state} cache: {taken:.3f} s")
        print(f"size of the cache: {(cache / FOOTER_FILE).stat().st_size / 1024:.0f} KiB")
        measure_test_part(Path(place) / "whole")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000)
