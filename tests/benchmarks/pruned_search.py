"""Folds until a search finds the optimum of a simulated objective, and replayed rules.

``python -m tests.benchmarks.pruned_search [--seeds 20] [--first-seed 0]``. A trial's true KL is
``0.60 + 0.10 * mean_i (x_i - c_i)^2 / s^2`` over three parameters in [0, 1], so that the KL of
random trials spreads like that of learning rates and losses; every trial has noise of its own in
each fold and shares the rows and their patients with the others (``tests.simulated_trials``).
The optimum is 0.60. A search has found it when the true KL of its best finished trial is within
0.005 of it. All folds take the same time.
"""

import argparse
import time

import numpy as np
import optuna
from optuna.trial import TrialState

from hms_ray.config.pruning import RULES, PruneConfig
from hms_ray.display.replay_table import render_replay
from hms_ray.search.replay import replay_rule
from tests.simulated_trials import (
    N_FOLDS,
    PATIENT_SD,
    SimulatedStudy,
    simulated_patients,
    simulated_trials,
)

OPTIMUM, WITHIN = 0.60, 0.005
CENTRE, SCALE, HEIGHT = np.array([0.3, 0.6, 0.5]), 0.5, 0.10
FOLD_NOISE = 0.006
MAX_TRIALS = 300


def true_kl(point: np.ndarray) -> float:
    return float(OPTIMUM + HEIGHT * (((point - CENTRE) / SCALE) ** 2).mean())


def folds_to_optimum(method: str, rule: str, seed: int) -> float:
    """Folds until the best finished trial is within the distance; infinity if never."""
    generator = np.random.default_rng(seed)
    patients = simulated_patients(generator)
    study = SimulatedStudy.new(PruneConfig(rule=rule), patients)
    sampler = (
        optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=5)
        if method == "tpe"
        else optuna.samplers.RandomSampler(seed=seed)
    )
    search = optuna.create_study(sampler=sampler)
    best, n_folds = (np.inf, np.inf), 0
    for _ in range(MAX_TRIALS):
        asked = search.ask()
        point = np.array([asked.suggest_float(f"x{i}", 0, 1) for i in range(3)])
        truth = true_kl(point)
        sums = simulated_trials(generator, patients, np.array([truth]), FOLD_NOISE)[0]
        known, estimate = study.run(sums)
        n_folds += known
        if known < N_FOLDS:
            asked.report(estimate, known)
            search.tell(asked, state=TrialState.PRUNED)
            continue
        score = sums.sum() / patients.sizes.sum()
        search.tell(asked, score)
        best = min(best, (score, truth))
        if best[1] <= OPTIMUM + WITHIN:
            return n_folds
    return np.inf


def searches(seeds: range) -> None:
    print(f"folds until within {WITHIN} of the optimum, median of {len(seeds)} seeds (quartiles)")
    print(f"seeds {seeds.start} to {seeds.stop - 1}")
    print(f"fold noise {FOLD_NOISE}, patients {PATIENT_SD}, height {HEIGHT}, {N_FOLDS} folds")
    reference = None
    for method, rule in (
        ("random", "none"),
        ("random", "paired"),
        ("tpe", "none"),
        ("tpe", "paired"),
    ):
        started = time.perf_counter()
        found = [folds_to_optimum(method, rule, seed) for seed in seeds]
        low, middle, high = np.quantile(found, [0.25, 0.5, 0.75], method="nearest")
        reference = reference or middle
        seconds = time.perf_counter() - started
        print(
            f"{method:7} {rule:7} {middle:6.0f} ({low:.0f} to {high:.0f})"
            f" {middle / reference:6.0%} of random  [{seconds:.0f} s]",
            flush=True,
        )


def replays(n_trials: int = 40, seed: int = 7, n_orders: int = 20) -> None:
    generator = np.random.default_rng(seed)
    patients = simulated_patients(generator)
    truths = np.array([true_kl(point) for point in generator.random((n_trials, 3))])
    sums = simulated_trials(generator, patients, truths, FOLD_NOISE)
    orders = [generator.permutation(n_trials) for _ in range(n_orders)]
    minutes = np.full(n_trials, 5.0 * N_FOLDS)
    rules = [replay_rule(PruneConfig(rule=rule), sums, patients, minutes, orders) for rule in RULES]
    print(f"\n{n_trials} simulated random trials x {N_FOLDS} folds of 5 minutes, seed {seed}")
    print(render_replay([vars(one) for one in rules], "KL", n_trials))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = parser.parse_args()
    searches(range(options.first_seed, options.first_seed + options.seeds))
    replays(seed=options.first_seed + 7)
