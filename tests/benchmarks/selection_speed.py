"""Seconds of nested cross-validation of all methods, against separate plain fits.

``python -m tests.benchmarks.selection_speed [--folder FOLDER] [--models 50] [--rows 17089]
[--objective kl_all]`` runs five splits by patient on the out-of-fold predictions of
``method_table`` or on simulated ones, and then again without sharing: every method is fitted
separately, log-linear methods with the exact Hessian at every step, greedy selection with
one logarithm per entry. Both run in one process, so that their ratio is independent of the
machine. It prints seconds of processor time, the largest difference of the methods' nested
KL, the largest duality gap, and the peak memory beyond the predictions. ``auto`` runs five
such rounds to select, about three and a half for the nested estimate of the selection, and
one fit of each method on all patients.
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
    EnsembleData,
    FitCache,
    checked_data,
    cross_validate,
    scored_rows,
)
from hms_ray.ensemble.methods import greedy
from hms_ray.ensemble.methods.base import tier_weights
from hms_ray.ensemble.methods.registry import all_methods
from hms_ray.evaluate.intervals import patient_groups
from hms_ray.evaluate.metric import OBJECTIVES, kl_rows
from hms_ray.evaluate.multinomial import Problem
from tests.benchmarks.blend_speed import simulated
from tests.oof_sample import oof_sample

N_SPLITS = 5


def plain(data: EnsembleData, candidates: list[Candidate], objective: Any) -> np.ndarray:
    """As ``cross_validate`` for seed 0, without sharing."""
    split = patient_groups(data.patients, N_SPLITS, 0, tier_weights(data.votes, objective))
    rows = np.empty((len(candidates), len(split)))

    def ungrouped(shares: np.ndarray) -> tuple[np.ndarray, int]:
        return np.arange(len(shares)), 0

    with (
        mock.patch.object(Problem, "curvature", Problem.hessian),
        mock.patch.object(greedy, "group_equal_shares", ungrouped),
    ):
        for number, candidate in enumerate(candidates):
            for part in range(N_SPLITS):
                inside = np.flatnonzero(split == part)
                training = data.take(np.flatnonzero(split != part))
                fitted = FitCache(training, objective).fit(candidate)
                predicted = fitted.predict(data.models[:, inside])
                rows[number, inside] = kl_rows(data.targets[inside], predicted)
    return rows


def largest_gap(stored: Any) -> float:
    """Largest gap in the JSON of a fitted method, members included."""
    if isinstance(stored, list):
        return max((largest_gap(part) for part in stored), default=0.0)
    if not isinstance(stored, dict):
        return 0.0
    own = [value for name, value in stored.items() if name.startswith("gap")]
    return max([0.0, *own, *(largest_gap(part) for part in stored.values())])


def timed(make: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    started = time.process_time()
    return make(), time.process_time() - started


def inputs(args: argparse.Namespace) -> EnsembleData:
    if args.folder:
        sample = oof_sample(args.folder)
        return checked_data(sample.targets, sample.models, sample.patients, sample.votes)
    targets, models = simulated(args.models, args.rows, dtype="float32")
    patients, votes = np.arange(args.rows) // 9, np.full(args.rows, 12)
    return checked_data(targets, models, patients, votes)


def main() -> None:
    """Prints a few lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--rows", type=int, default=17_089)
    parser.add_argument("--objective", choices=OBJECTIVES, default="kl_all")
    parser.add_argument("--alone", action="store_true", help="skip the plain fits")
    args = parser.parse_args()
    data = inputs(args)
    candidates = [Candidate(method) for method in all_methods().values()]
    scored = scored_rows(data, args.objective)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shared, seconds = timed(
        lambda: cross_validate(data, candidates, args.objective, [0], N_SPLITS).scores[:, 0]
    )
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    n_models, n_rows = data.models.shape[:2]
    print(f"{len(candidates)} methods of {n_models} models on {n_rows:,} rows, {args.objective}:")
    print(f"{seconds:.1f} s for {N_SPLITS} splits,")
    print(f"peak memory {memory / data.models.nbytes:.1f} times the predictions.")
    if args.alone:
        return
    rows, plain_seconds = timed(lambda: plain(data, candidates, args.objective))
    apart = np.abs(shared[:, scored].mean(axis=1) - rows[:, scored].mean(axis=1)).max()
    gaps = [
        largest_gap(FitCache(data, args.objective).fit(candidate).to_json())
        for candidate in candidates
    ]
    print(f"Plainly {plain_seconds:.1f} s, {plain_seconds / seconds:.1f} times as long.")
    print(f"Largest difference {apart:.0e} nats, largest gap {max(gaps):.0e}.")


if __name__ == "__main__":
    main()
