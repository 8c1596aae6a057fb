"""What ``hms-ray bench`` estimates against what the sweep then takes.

Runs ``bench`` and then the sweep of the demo, each as a command of its own, in turns, and prints
estimate / truth: of the whole run, of the training of its folds, and of the rest. The sweep has
no pruning, so that all folds are trained, and uses an empty fold store.

Run on an otherwise idle machine: python -m tests.benchmarks.bench_truth [--space demo] [--runs 3]
[--set A.B=C] [--short]; ``--short`` is one run of two trials.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from hms_ray.config.loading import load_space
from hms_ray.config.shipped import find_space
from hms_ray.dataset.prepare import prepare
from hms_ray.dataset.sources import sources_for
from hms_ray.display.run_cost import RunCost
from hms_ray.simulate.folder import simulate_folder
from hms_ray.storage.structured_files import read_json
from hms_ray.study.bench_estimate import BENCH_FOLDER
from hms_ray.study.cost import read_costs


def command(*words: object) -> None:
    """Runs a command; its output goes to standard error."""
    call = [sys.executable, "-m", "hms_ray", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(call, check=True, stdout=sys.stderr, env=environment)


def one_run(space: str, settings: list[str], folder: Path, number: int) -> tuple[float, RunCost]:
    """Seconds of the mean trial as estimated, and the cost of a sweep."""
    results = folder / f"results-{number}"
    words = [space, "--data", folder / "data", "--results", results]
    words += [word for setting in settings for word in ("--set", setting)]
    command("bench", *words)
    command("sweep", *words, "--study", "truth")
    (file,) = (results / BENCH_FOLDER).iterdir()
    (cost,) = read_costs(results / "truth")
    return read_json(file, dict)["trial_s"], cost


def main(chosen: argparse.Namespace, folder: Path) -> None:
    """Runs the pairs and prints one line for each."""
    settings = ["prune=none", *chosen.settings]
    space = load_space(find_space(chosen.space), settings)
    simulate_folder(folder / "data", n_patients=150, seed=0)
    # Neither the bench nor the sweep is to pack.
    prepared = prepare(
        folder / "data", space.experiment, folder / "packed", sources=sources_for(space)
    )
    heads = (
        "estimate",
        "truth",
        "ratio",
        "training",
        "truth",
        "ratio",
        "start-up",
        "idle",
        "useful",
    )
    print(" ".join(f"{head:>9}" for head in heads), flush=True)
    whole, training = [], []
    for number in range(chosen.runs):
        trial_s, cost = one_run(chosen.space, settings, folder, number)
        assert cost.estimate is not None
        assert cost.estimate.source == "bench", "the sweep has not found its bench"
        estimated_s = trial_s * cost.n_folds / prepared.n_folds
        whole.append(cost.estimate.seconds / cost.seconds)
        training.append(estimated_s / cost.training_s)
        idle_s = cost.slots * (cost.seconds - cost.start_up_s) - cost.training_s
        print(
            f"{cost.estimate.seconds:9.1f} {cost.seconds:9.1f} {whole[-1]:9.2f} "
            f"{estimated_s:9.1f} {cost.training_s:9.1f} {training[-1]:9.2f} "
            f"{cost.start_up_s:9.1f} {idle_s:9.1f} {cost.useful_share or 0:9.0%}",
            flush=True,
        )
    for name, ratios in (("whole run", whole), ("training", training)):
        print(
            f"estimate / truth, {name}: median {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}), {len(ratios)} runs"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", default="demo")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    if options.short:
        options.runs = 1
        options.settings = ["budget.trials=2", *options.settings]
    with tempfile.TemporaryDirectory() as temporary:
        main(options, Path(temporary))
