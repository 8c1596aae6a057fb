"""The small gold ladder on simulated data: several data seeds and a negative control, combined.

For each seed: a simulated folder, the whole ladder on it; and a folder without two causes, the
spatial order of electrodes and changes over time, with the steps whose gain they explain. Then
``ladder pool`` writes tables and plots to ``RESULTS/forest_gold``. Data and packs are deleted after
use. The table has the minutes of each command. Goal: all ladders in 40 minutes on two cores. The
same command continues after a stop.

Run: python -m tests.benchmarks.gold_ladder [--seeds 3] [--patients 150] [--results results]
[--work DIR] [--short]; ``--short`` has two seeds of 40 patients and a few steps.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

CONTROLS: Final = ("shuffled_montage", "stationary_context")
OF_CONTROL: Final = ("chain_means", "pairs", "interleaved", "two_windows", "magnified")
SHORT_STEPS: Final = ("chain_means", "pairs", "interleaved", "many_votes", "g5", "g6")
GOAL_MINUTES: Final = 40.0


class Timed:
    """Runs commands of ``hms-ray`` and keeps their minutes."""

    def __init__(self) -> None:
        self.minutes: list[tuple[str, float]] = []

    def __call__(self, name: str, *words: object) -> None:
        command = ["hms-ray", *map(str, words)]
        print("$", shlex.join(command), flush=True)
        program = "import sys; from hms_ray.cli.main import main; sys.exit(main(sys.argv[1:]))"
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", program, *command[1:]], check=True)
        self.minutes.append((name, (time.monotonic() - began) / 60))


def run(options: argparse.Namespace, work: Path) -> list[tuple[str, float]]:
    """Simulates, trains and combines; returns the minutes of each part."""
    timed, results = Timed(), options.results
    steps = {"": SHORT_STEPS if options.short else (), "control": OF_CONTROL}
    if options.short:
        steps["control"] = OF_CONTROL[:3]
    studies: dict[str, list[str]] = {"": [], "control": []}
    for seed in range(options.seeds):
        for kind, chosen in steps.items():
            study = f"gold-{kind}{seed}"
            studies[kind].append(study)
            if (results / study / "steps.json").is_file():
                continue
            data = work / study
            if not data.exists():
                causes = CONTROLS if kind else ()
                removed = [word for name in causes for word in ("--control", name)]
                patients = ("--patients", options.patients, "--seed", seed)
                timed("simulate", "simulate", "--out", data, *patients, *removed)
            only = [word for name in chosen for word in ("--steps", name)]
            where = ("--data", data, "--results", results, "--study", study)
            name = "ladder of the control" if kind else "ladder"
            timed(name, "ladder", "gold", "--scale", "small", *where, *only)
            shutil.rmtree(data)
    controls = [word for name in studies["control"] for word in ("--control", name)]
    out = ("--results", results, "--out", results / "forest_gold")
    timed("combine", "ladder", "pool", *studies[""], *controls, *out)
    return timed.minutes


def main() -> None:
    """Prints the minutes of each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--patients", type=int, default=150)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument(
        "--work", type=Path, help="folder of the simulated data; default: temporary"
    )
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    if options.short:
        options.seeds, options.patients = 2, 40
    with tempfile.TemporaryDirectory(prefix="gold-ladder-") as folder:
        minutes = run(options, options.work or Path(folder))
    names = list(dict.fromkeys(name for name, _ in minutes))
    print(f"\n{'part':<24} {'runs':>4}  minutes")
    for name in names:
        each = [spent for part, spent in minutes if part == name]
        print(f"{name:<24} {len(each):>4}  {sum(each):7.1f}")
    total = sum(spent for name, spent in minutes if name != "simulate")
    print(f"{'without simulating':<24} {'':>4}  {total:7.1f}  (goal: {GOAL_MINUTES:.0f})")


if __name__ == "__main__":
    main()
