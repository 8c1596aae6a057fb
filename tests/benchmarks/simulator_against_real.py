"""The simulator against the real data, figure by figure.

``python -m tests.benchmarks.simulator_against_real REAL [--seeds 0 1 2]`` prints a line a
figure. Of label tables: real, simulated (the mean over the seeds), the largest difference
of any seed, the allowed one. Of recordings (see ``simulator_signals``, which runs alone
too), of the first seed: real, simulated, difference, target. REAL is a folder with
``train_labels.parquet`` or ``train.csv`` and, in it or in ``competition/``, a few
recordings. The exit status is 1 where a limit is missed. Times count one core, whatever
else it does.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.report.tables import Column, Table, to_text
from hms_ray.simulate.tables import Cohort, simulate_labels
from tests.benchmarks.simulator_labels import Line, label_lines
from tests.benchmarks.simulator_signals import signal_table, simulated_lines

SECONDS_ALLOWED = 60.0


def real_labels(folder: Path) -> pd.DataFrame:
    """The real label table."""
    parquet = folder / "train_labels.parquet"
    return pd.read_parquet(parquet) if parquet.is_file() else pd.read_csv(folder / "train.csv")


def label_part(folder: Path, n_patients: int, seeds: list[int]) -> list[list[Line]]:
    """Lines of the label tables of all seeds, and the time of one core that each took."""
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
        by_seed.append(
            [*lines, Line("seconds of one core a label table", 0.0, seconds, SECONDS_ALLOWED)]
        )
    return by_seed


def report(by_seed: list[list[Line]]) -> tuple[list[str], bool]:
    """A table of all lines, and whether each seed keeps all limits."""
    cells: list[list[str]] = []
    ok = True
    for lines in zip(*by_seed, strict=True):
        first = lines[0]
        worst = max((line.simulated - line.real for line in lines), key=abs)
        verdicts = {line.verdict for line in lines}
        ok &= "OFF" not in verdicts
        digits = 3 if abs(first.real) < 2 else 1 if abs(first.real) < 1000 else 0
        cells.append(
            [
                first.name,
                f"{first.real:,.{digits}f}",
                f"{np.mean([line.simulated for line in lines]):,.{digits}f}",
                f"{worst:+,.{digits}f}",
                "" if first.within is None else f"{first.within:g}",
                "OFF" if "OFF" in verdicts else first.verdict,
            ]
        )
    titles = ["figure", "real", "simulated", "worst", "limit", ""]
    columns = [
        Column(title, column, right=0 < position < 5)
        for position, (title, column) in enumerate(
            zip(titles, zip(*cells, strict=True), strict=True)
        )
    ]
    return to_text(Table("", tuple(columns))).splitlines(), ok


def main() -> int:
    """Prints the table."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("real", type=Path, help="folder of the real label table")
    words.add_argument("--patients", type=int, default=1_950)
    words.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    words.add_argument("--recorded", type=int, default=40, help="patients with recordings; 0: none")
    words.add_argument("--processes", type=int, default=2, help="that simulate recordings")
    given = words.parse_args()
    lines, ok = report(label_part(given.real, given.patients, given.seeds))
    print("\n".join(lines))
    if given.recorded:
        signals = simulated_lines(given.real, given.recorded, given.seeds[0], given.processes)
        print("\n".join(["", *signal_table(signals)]))
        ok &= all(line.verdict != "OFF" for line in signals)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
