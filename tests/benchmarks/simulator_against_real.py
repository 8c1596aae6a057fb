"""Simulated compared with real data, one line per figure.

``python -m tests.benchmarks.simulator_against_real REAL [--seeds 0 1 2]`` prints for label
tables: real value, simulated value (mean over seeds), largest difference of any seed, allowed
range; then the same for recordings of the first seed (see ``simulator_signals``). REAL is a
folder with ``train_labels.parquet`` or ``train.csv`` and a few recordings, in it or in
``competition/``. The exit status is 1 if a limit is missed. Times are CPU seconds; with two
processes the rate of simulation has a limit too.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.display.tables import Column, Table, to_text
from hms_ray.simulate.cohort import Cohort, simulate_labels
from tests.benchmarks.simulator_labels import Line, label_lines, near
from tests.benchmarks.simulator_signals import simulated_lines

SECONDS_ALLOWED = 60.0


def real_labels(folder: Path) -> pd.DataFrame:
    """The real label table."""
    parquet = folder / "train_labels.parquet"
    return pd.read_parquet(parquet) if parquet.is_file() else pd.read_csv(folder / "train.csv")


def label_part(folder: Path, n_patients: int, seeds: list[int]) -> list[list[Line]]:
    """Lines of the label tables of all seeds, each with its CPU time."""
    real = real_labels(folder)
    by_seed = []
    for seed in seeds:
        started = time.process_time()
        labels, _ = simulate_labels(n_patients, Cohort(seed, "competition"))
        seconds = time.process_time() - started
        print(
            f"seed {seed}: {len(labels):,} label rows in {seconds:.1f} s of one core",
            file=sys.stderr,
        )
        lines = label_lines(real, labels)
        by_seed.append([*lines, near("CPU seconds per label table", 0.0, seconds, SECONDS_ALLOWED)])
    return by_seed


def report(by_seed: list[list[Line]]) -> tuple[str, bool]:
    """A table of all lines, and whether all seeds are within all limits."""
    cells: list[list[str]] = []
    for lines in zip(*by_seed, strict=True):
        first = lines[0]
        worst = max((line.simulated - line.real for line in lines), key=abs)
        digits = 3 if abs(first.real) < 10 else 1 if abs(first.real) < 1000 else 0
        off = any(line.verdict == "OFF" for line in lines)
        cells.append(
            [
                first.name,
                f"{first.real:,.{digits}f}",
                f"{np.mean([line.simulated for line in lines]):,.{digits}f}",
                f"{worst:+,.{digits}f}",
                first.target,
                "OFF" if off else first.verdict,
            ]
        )
    titles = ["figure", "real", "simulated", "worst", "allowed", ""]
    columns = zip(titles, zip(*cells, strict=True), strict=True)
    table = Table(
        "", tuple(Column(title, column, title in titles[1:4]) for title, column in columns)
    )
    return to_text(table), not any(row[-1] == "OFF" for row in cells)


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("real", type=Path, help="folder of the real label table")
    parser.add_argument("--patients", type=int, default=1_950)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--recorded", type=int, default=40, help="patients with recordings; 0: none"
    )
    parser.add_argument("--processes", type=int, default=2, help="processes of the simulation")
    given = parser.parse_args()
    parts = [label_part(given.real, given.patients, given.seeds)]
    if given.recorded:
        parts.append([simulated_lines(given.real, given.recorded, given.seeds[0], given.processes)])
    texts, ok = zip(*map(report, parts), strict=True)
    print("\n\n".join(texts))
    return 0 if all(ok) else 1


if __name__ == "__main__":
    sys.exit(main())
