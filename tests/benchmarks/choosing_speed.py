"""Seconds that rating all pools takes, against fitting each pool alone by plain means.

``python -m tests.benchmarks.choosing_speed [--folder FOLDER] [--models 50] [--rows 17089]
[--objective kl_all]`` rates all pools in one series of five splits by patient, on the
out-of-fold predictions of ``pool_table`` or on simulated ones, and does the same with
nothing shared: every pool is fitted alone, log-linear pools with the exact Hessian at every
step, greedy selection with one logarithm an entry. Both run in one process, so that their
ratio is that of the same machine. Printed are seconds of processor time, the largest
difference between the two in any pool's nested KL, the largest duality gap, and the peak
of memory above the predictions'. ``auto`` takes five such series to choose, about three
and a half more to tell what choosing is worth, and one fit of each pool on all patients.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from hms_ray.ensemble.cross_validation import (
    Candidate,
    Data,
    checked_data,
    fit_candidate,
    nested_rows,
    scored_rows,
)
from hms_ray.ensemble.methods import greedy
from hms_ray.ensemble.methods.base import tier_weights
from hms_ray.ensemble.methods.registry import all_pools
from hms_ray.ensemble.solvers.multinomial import Problem
from hms_ray.evaluate.intervals import patient_groups
from hms_ray.evaluate.metric import OBJECTIVES, kl_rows
from tests.benchmarks.blend_speed import simulated
from tests.oof_sample import oof_sample

N_SPLITS = 5


def plain(data: Data, candidates: list[Candidate], objective: Any) -> np.ndarray:
    """As ``nested_rows`` for seed 0, with nothing shared."""
    split = patient_groups(data.patients, N_SPLITS, 0, tier_weights(data.votes, objective))
    rows = np.empty((len(candidates), len(split)))

    def ungrouped(shares: np.ndarray) -> tuple[np.ndarray, int]:
        return np.arange(len(shares)), 0

    with (
        mock.patch.object(Problem, "curvature", Problem.hessian),
        mock.patch.object(greedy, "grouped", ungrouped),
    ):
        for number, candidate in enumerate(candidates):
            for part in range(N_SPLITS):
                inside = np.flatnonzero(split == part)
                training = data.part(np.flatnonzero(split != part))
                fitted = fit_candidate(training, candidate, objective)
                predicted = fitted.predict(data.models[:, inside])
                rows[number, inside] = kl_rows(data.targets[inside], predicted)
    return rows


def largest_gap(described: Any) -> float:
    """Of a fitted pool's description and of its members."""
    if isinstance(described, list):
        return max((largest_gap(part) for part in described), default=0.0)
    if not isinstance(described, dict):
        return 0.0
    own = [value for name, value in described.items() if name.startswith("gap")]
    return max([0.0, *own, *(largest_gap(part) for part in described.values())])


def timed(make: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    started = time.process_time()
    return make(), time.process_time() - started


def inputs(given: argparse.Namespace) -> Data:
    if given.folder:
        sample = oof_sample(given.folder)
        return checked_data(sample.targets, sample.models, sample.patients, sample.votes)
    targets, models = simulated(given.models, given.rows, dtype="float32")
    patients, votes = np.arange(given.rows) // 9, np.full(given.rows, 12)
    return checked_data(targets, models, patients, votes)


def main() -> None:
    """Prints a few lines."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--folder", type=Path)
    words.add_argument("--models", type=int, default=50)
    words.add_argument("--rows", type=int, default=17_089)
    words.add_argument("--objective", choices=OBJECTIVES, default="kl_all")
    words.add_argument("--alone", action="store_true", help="leave the plain way out")
    given = words.parse_args()
    data = inputs(given)
    candidates = [Candidate(pool) for pool in all_pools().values()]
    scored = scored_rows(data, given.objective)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shared, seconds = timed(lambda: nested_rows(data, candidates, given.objective, 0, N_SPLITS))
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    n_models, n_rows = data.models.shape[:2]
    print(f"{len(candidates)} pools of {n_models} models on {n_rows:,} rows, {given.objective}:")
    print(f"{seconds:.1f} s for {N_SPLITS} splits,")
    print(f"peak memory {memory / data.models.nbytes:.1f} times the predictions.")
    if given.alone:
        return
    rows, plain_seconds = timed(lambda: plain(data, candidates, given.objective))
    apart = np.abs(shared[:, scored].mean(axis=1) - rows[:, scored].mean(axis=1)).max()
    gaps = [
        largest_gap(fit_candidate(data, candidate, given.objective).to_json())
        for candidate in candidates
    ]
    print(f"Plainly {plain_seconds:.1f} s, {plain_seconds / seconds:.1f} times as long.")
    print(f"Largest difference {apart:.0e} nats, largest gap {max(gaps):.0e}.")


if __name__ == "__main__":
    main()
