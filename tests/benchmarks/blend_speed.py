"""Exact simplex weights against SciPy's SLSQP with exact gradients: time and memory.

``python -m tests.benchmarks.blend_speed [--models 20 50 200 500 1000] [--rows 17089]``
prints seconds and duality gap of both on the same simulated predictions, both started at
equal weights. SLSQP is skipped above ``--most`` models. ``--scaling 10000 100000 1000000``
runs 100 models on these numbers of rows and prints seconds per million rows, which are
constant if the cost is linear. Every case runs in its own process, so that ``memory`` is the
peak of the call alone, as a multiple of the size of the predictions (float32 in ``--scaling``).

Measured on one core (seconds, gap; then SLSQP's): 20 models 0.02, 2e-16; 0.02, 3e-8.
50 models 0.04, 2e-16; 0.09, 2e-8. 200 models 0.17, 7e-16; 0.99, 2e-8. 500 models 0.39,
7e-12; 6.3, 1e-8. 1,000 models 0.74, 2e-14. 100 models: 6.4, 5.4 and 12.5 s per million rows
at 10,000, 100,000 and 1,000,000 rows. Memory 0.4 to 1.1 times the predictions.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

from hms_ray.display.tables import Column, Table, to_text
from hms_ray.ensemble.simplex import simplex_weights
from tests.slsqp import slsqp_weights


def simulated(
    n_models: int, n_rows: int, seed: int = 0, dtype: str = "float64"
) -> tuple[np.ndarray, np.ndarray]:
    """Targets (n, 6) voted from a truth and models (M, n, 6) that see it with noise."""
    generator = np.random.default_rng(seed)
    truth = 2 * generator.normal(size=(n_rows, 6))
    chances = np.exp(truth) / np.exp(truth).sum(axis=1, keepdims=True)
    totals = generator.choice([1, 3, 3, 12], size=n_rows)
    votes = generator.multinomial(totals, chances)
    models = np.empty((n_models, n_rows, 6), dtype)
    for number in range(n_models):
        noise = generator.uniform(0.6, 1.5) * generator.normal(size=(n_rows, 6))
        model = np.exp(generator.uniform(0.3, 1.3) * truth + noise)
        models[number] = model / model.sum(axis=1, keepdims=True)
    return votes / votes.sum(axis=1, keepdims=True), models


def slsqp(targets: np.ndarray, models: np.ndarray) -> tuple[float, float]:
    """Seconds and duality gap of SciPy's SLSQP on the same objective."""
    started = time.perf_counter()
    entries = np.flatnonzero(targets.ravel())
    shares = targets.ravel()[entries] / len(targets)
    columns = np.clip(models, 1e-15, 1 - 1e-15).reshape(len(models), -1)[:, entries]
    weights = slsqp_weights(shares, columns, 1e-14)
    seconds = time.perf_counter() - started
    return seconds, float((columns @ (shares / (weights @ columns))).max() - 1)


def peak() -> int:
    """Largest memory of this process so far, in bytes (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured(n_models: int, n_rows: int, repeats: int, dtype: str, other: bool) -> dict:
    """One case: the fastest of the repeats, in this process."""
    targets, models = simulated(n_models, n_rows, dtype=dtype)
    before = peak()
    seconds = other_seconds = float("inf")
    memory, other_gap = 0.0, float("nan")
    for _ in range(repeats):
        started = time.perf_counter()
        fit = simplex_weights(targets, models)
        seconds = min(seconds, time.perf_counter() - started)
        # The arrays of SLSQP do not count.
        memory = memory or (peak() - before) / models.nbytes
        if other:
            taken, other_gap = slsqp(targets, models)
            other_seconds = min(other_seconds, taken)
    return {
        "models": n_models,
        "rows": n_rows,
        "seconds": seconds,
        "gap": fit.gap,
        "steps": fit.iterations,
        "memory": memory,
        "other_seconds": other_seconds if other else None,
        "other_gap": other_gap if other else None,
    }


def alone(*words: object) -> dict:
    """``measured`` in a new process."""
    command = [sys.executable, "-m", "tests.benchmarks.blend_speed", "--case", *map(str, words)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict = json.loads(done.stdout)
    return found


def printed(cases: list[dict]) -> None:
    cells = []
    for case in cases:
        other = case["other_seconds"]
        cells.append(
            [
                str(case["models"]),
                f"{case['rows']:,}",
                f"{case['seconds']:.2f}",
                f"{case['seconds'] / case['rows'] * 1e6:.1f}",
                f"{case['gap']:.1e}",
                str(case["steps"]),
                f"{case['memory']:.2f}",
                "-" if other is None else f"{other:.2f}",
                "-" if other is None else f"{case['other_gap']:.1e}",
                "-" if other is None else f"{other / case['seconds']:.1f}",
            ]
        )
    titles = ["models", "rows", "exact s", "s per million", "gap", "steps", "memory"]
    titles += ["SLSQP s", "SLSQP gap", "times faster"]
    columns = [
        Column(title, list(cell))
        for title, cell in zip(titles, zip(*cells, strict=True), strict=True)
    ]
    print(to_text(Table("", tuple(columns))))


def main() -> None:
    """Prints one line per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, nargs="*", default=[20, 50, 200, 500, 1000])
    parser.add_argument("--rows", type=int, default=17_089)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest one counts")
    parser.add_argument("--most", type=int, default=500, help="SLSQP's largest number of models")
    parser.add_argument("--scaling", type=int, nargs="*", default=[], help="rows of 100 models")
    parser.add_argument("--case", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        models, rows, repeats, dtype, other = args.case
        print(json.dumps(measured(int(models), int(rows), int(repeats), dtype, other == "True")))
        return
    cases = [
        alone(models, args.rows, args.repeats, "float64", models <= args.most)
        for models in args.models
    ]
    cases += [alone(100, rows, 1, "float32", False) for rows in args.scaling]
    printed(cases)


if __name__ == "__main__":
    main()
