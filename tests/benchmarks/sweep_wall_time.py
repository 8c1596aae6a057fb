"""Wall time of a sweep against its training: what standing worker groups waste.

Goal: wall time at most ``training seconds / slots x 1.1 + 25 s``. Sweeps run in pairs, one with
each kind of group, in turns, so that a busy machine slows both. Two cases:

- ``demo``: the search of ``make demo``, 6 trials x 3 folds on simulated data, groups of two
  workers.
- ``stub``: 12 trials x 3 folds that each wait for 10 s in the worker, groups of one worker.

Every sweep is a process of its own, so its wall time has the start of Python and Ray and their
end; the table also has the useful share, training / (slots x time since the first job), and the
start-up before it, as ``sweep`` prints them.

Run: python -m tests.benchmarks.sweep_wall_time [--case demo] [--groups study fold] [--pairs 3]
[--short]; ``--short`` has one pair of 2 trials and folds of 2 s.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hms_ray.config.loading import load_space, validate_space
from hms_ray.config.shipped import find_space
from hms_ray.config.space import Space
from hms_ray.dataset.prepare import Prepared, prepare
from hms_ray.evaluate.oof import make_oof
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.simulate.folder import simulate_folder
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.cost import read_costs
from tests.competition_folder import write_competition_folder

GROUPS = ("study", "fold")
SHARE, START_S = 1.1, 25.0
STUB_FOLD_S, STUB_TRIALS = 10.0, 12


def wait_and_store(task: FoldTask, process: Any, seconds: float) -> None:
    """A fold that takes a known time and stores a table of random predictions."""
    began = time.perf_counter()
    time.sleep(seconds)
    if process.rank:
        return
    rows = task.prepared.rows()
    valid = rows[rows["fold"] == task.fold]
    draws = np.random.default_rng(int(task.key[:8], 16)).dirichlet(np.ones(6), len(valid))
    scores = {"kl_all": 1.0, "kl_4": 1.0, "kl_10": 1.0}
    history = [
        {"stage": "train", "stage_index": 0, "epoch": 1, "step": 1, "seconds": seconds, **scores}
        | {"train_loss": 1.0, "learning_rate": 1e-3}
    ]
    record = {
        "made_from": task.key_inputs,
        "history": history,
        "timing": {"total_s": seconds, "train_s": seconds, "evaluate_s": 0.0, "images_per_s": 0.0},
        "optimistic": False,
        "saved_s": 0.0,
        "started_s": time.time() - seconds,
        "seconds": time.perf_counter() - began,
    }
    oof = make_oof(valid, task.fold, draws)
    FoldStore(task.results).write(task.key, oof, record, lambda path: path.write_bytes(b""))


def demo_space(group: str, trials: int) -> Space:
    return load_space(
        find_space("demo"), [f"resources.group={group}", f"budget.trials={trials}", *_NO_PRUNING]
    )


def stub_space(group: str, trials: int) -> Space:
    return validate_space(
        {
            "experiment": {
                "data": {"n_folds": 3},
                "input": {"downsample": [10, 10]},
                "model": {"name": "test_resnet", "pretrained": False, "drop_path": 0},
                "training": {"stages": [{"epochs": 1}]},
            },
            "method": "random",
            "parameters": {"training.weight_decay": {"min": 1e-5, "max": 1e-1, "log": True}},
            "budget": {"trials": trials},
            "resources": {"group": group, "health_check_interval_s": 0.2},
            **({"prune": "none"} if _NO_PRUNING else {}),
        },
        "stub",
    )


_NO_PRUNING = ["prune=none"] if "prune" in Space.model_fields else []
"""Every fold is to be trained in both sweeps of a pair."""


def prepared_case(case: str, folder: Path) -> Prepared:
    """Data and packs of a case; made once."""
    space = demo_space("fold", 1) if case == "demo" else stub_space("fold", 1)
    data = folder / case
    if not data.exists():
        if case == "demo":
            simulate_folder(data, n_patients=150, seed=0)
        else:
            write_competition_folder(data, 12)
    return prepare(data, space.experiment, folder / "results")


def run_one(case: str, group: str, trials: int, fold_s: float, folder: Path) -> None:
    """One sweep in this process; prints its cost as JSON on the last line."""
    from hms_ray.experiment.fold_task import run_task
    from hms_ray.sweep.study import run_study

    space = demo_space(group, trials) if case == "demo" else stub_space(group, trials)
    prepared = prepared_case(case, folder)
    train: Any = run_task if case == "demo" else partial(wait_and_store, seconds=fold_s)
    with tempfile.TemporaryDirectory(dir=folder) as results:
        with open(os.devnull, "w") as nowhere:
            run = run_study(space, prepared, results, "study", train=train, stream=nowhere)
        (cost,) = read_costs(run.folder.path)
    print(json.dumps({**asdict(cost), "share": cost.useful_share}))


def measure(case: str, group: str, trials: int, fold_s: float, folder: Path) -> dict[str, float]:
    """One sweep in a process of its own."""
    words = ["--one", group, "--case", case, "--trials", trials, "--fold-s", fold_s]
    call = [sys.executable, "-m", "tests.benchmarks.sweep_wall_time", *map(str, words)]
    began = time.perf_counter()
    done = subprocess.run(
        [*call, "--folder", str(folder)], check=True, stdout=subprocess.PIPE, text=True
    )
    wall = time.perf_counter() - began
    cost: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    goal = SHARE * cost["training_s"] / cost["slots"] + START_S
    return {**cost, "wall": wall, "goal": goal}


def main(chosen: argparse.Namespace, folder: Path) -> None:
    """Runs the pairs and prints one line per case and kind of group."""
    heads = (
        "case",
        "group",
        "slots",
        "training",
        "wall",
        "goal",
        "wall/goal",
        "start-up",
        "useful",
    )
    print(" ".join(f"{head:>10}" for head in heads), flush=True)
    for case in chosen.case:
        prepared_case(case, folder)
        trials = chosen.trials or (6 if case == "demo" else STUB_TRIALS)
        found: dict[str, list[dict[str, float]]] = {group: [] for group in chosen.groups}
        for pair in range(chosen.pairs):
            order = chosen.groups if pair % 2 == 0 else chosen.groups[::-1]
            for group in order:
                found[group].append(measure(case, group, trials, chosen.fold_s, folder))
        for group, runs in found.items():
            middle = {
                name: statistics.median(run[name] for run in runs)
                for name in ("slots", "training_s", "wall", "goal", "start_up_s", "share")
            }
            ratios = [run["wall"] / run["goal"] for run in runs]
            print(
                f"{case:>10} {group:>10} {middle['slots']:10g} {middle['training_s']:10.1f} "
                f"{middle['wall']:10.1f} {middle['goal']:10.1f} {statistics.median(ratios):10.2f} "
                f"{middle['start_up_s']:10.1f} {middle['share']:10.0%}  "
                f"wall {min(r['wall'] for r in runs):.0f}-{max(r['wall'] for r in runs):.0f} s, "
                f"wall/goal {min(ratios):.2f}-{max(ratios):.2f}, {len(runs)} runs",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs="+", default=["demo", "stub"], choices=["demo", "stub"])
    parser.add_argument("--groups", nargs="+", default=list(GROUPS))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--trials", type=int, help="default: 6 in the demo, 12 of stub folds")
    parser.add_argument("--fold-s", type=float, default=STUB_FOLD_S, help="of a stub fold")
    parser.add_argument("--folder", type=Path, help="for data and packs; default: temporary")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.short:
        options.pairs, options.trials, options.fold_s = 1, 2, 2.0
    if options.one:
        run_one(options.case[0], options.one, options.trials, options.fold_s, options.folder)
    elif options.folder is not None:
        main(options, options.folder)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(options, Path(temporary))
