"""Search by blend gain against search by KL, on simulated trials.

``python -m tests.benchmarks.blend_gain [--seeds 20] [--first-seed 0] [--trials 40]
[--renew-every 10]``

A simulated trial has a family (three) and three settings. Its errors are the sum of a field that
varies smoothly with its settings, a part that all trials share, and noise of its own. The
families differ in their best settings and in their level. In the world ``alike`` most of the error
is shared or its own; in ``diverse`` most of it changes with the settings, so that distant trials
complement each other. Each search has the same number of trials. At the end, the exact blend of
all finished trials is scored on other patients: nested on the rows of the search, and on 4,000
new rows. Below 0 a search is better than the search by KL of the same seed.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import optuna
from threadpoolctl import threadpool_limits

from hms_ray.ensemble.blend_gain import GainRows
from hms_ray.ensemble.reference_blend import (
    ReferenceFit,
    fit_reference,
    predict_folds,
    predict_without,
)
from tests.ensemble_data import softmax

N_ROWS, N_NEW, N_PATIENTS, N_FOLDS = 1500, 4000, 150, 5
STARTUP_TRIALS = 5
SETTINGS = {
    "family": optuna.distributions.CategoricalDistribution([0, 1, 2]),
    **{f"x{n}": optuna.distributions.FloatDistribution(0, 1) for n in range(3)},
}
WORLDS = {"alike": (0.75, 0.5, 0.4), "diverse": (1.0, 0.1, 0.2)}
"""Name -> share of the error that changes with the settings, of a trial's own, that all share."""


class World:
    """Rows of patients, and trials that see the truth with errors."""

    def __init__(self, seed: int, kind: str) -> None:
        generator = np.random.default_rng(seed)
        self._shares, n = WORLDS[kind], N_ROWS + N_NEW
        patients = np.concatenate(
            [
                generator.integers(0, N_PATIENTS, size=N_ROWS),
                N_PATIENTS + generator.integers(0, 400, size=N_NEW),
            ]
        )
        of_patient = 1.2 * generator.normal(size=(N_PATIENTS + 400, 6))
        self._truth = of_patient[patients] + generator.normal(size=(n, 6))
        votes = generator.integers(10, 20, size=n)
        drawn = map(generator.multinomial, votes, softmax(self._truth))
        targets = np.stack(list(drawn)) / votes[:, None]
        self._fields = generator.normal(size=(3, 12, n, 6))
        self._common = generator.normal(size=(n, 6))
        self._waves = 2.2 * generator.normal(size=(12, 3)), generator.uniform(0, 6.28, size=12)
        self._best = generator.uniform(0.2, 0.8, size=(3, 3))
        self._levels = np.array([0, 0.12, 0.25])[generator.permutation(3)]
        self._own = np.random.default_rng([seed, 7])
        self.patients = patients[:N_ROWS]
        folds, everything = patients % N_FOLDS, np.ones(n, dtype=bool)
        self.rows = GainRows.of(targets[:N_ROWS], folds[:N_ROWS], everything[:N_ROWS])
        self.new = GainRows.of(targets[N_ROWS:], folds[N_ROWS:], everything[N_ROWS:])

    def trial(self, family: int, settings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities of the entries of the rows, and of the new rows."""
        waves, phases = self._waves
        parts = np.cos(waves @ settings + phases)
        parts /= np.linalg.norm(parts)
        error = np.tensordot(parts, self._fields[family], 1)
        changing, own, common = self._shares
        distance = ((settings - self._best[family]) ** 2).sum()
        size = 0.7 + self._levels[family] + 1.6 * distance
        noise = own * self._own.normal(size=error.shape)
        error = size * (changing * error + noise + common * self._common)
        predicted = softmax(0.8 * (0.75 * self._truth + error))
        known, new = predicted[:N_ROWS], predicted[N_ROWS:]
        return self.rows.probabilities(known), self.new.probabilities(new)


@dataclass
class Search:
    """One search of a world; ``method``: ``kl``, ``gain`` or ``random``."""

    world: World
    method: str
    seed: int
    renew_every: int

    def run(self, n_trials: int) -> tuple[float, float]:
        """Nested KL of the final blend, and its KL on the new rows."""
        world, rows = self.world, self.world.rows
        models, new = [], []
        by_gain = self.method == "gain"
        study = optuna.create_study(direction="maximize" if by_gain else "minimize")
        reference = None
        for number in range(n_trials):
            study.sampler = self._sampler(number)
            trial = study.ask(SETTINGS)
            settings = np.array([trial.params[f"x{n}"] for n in range(3)])
            model, of_new = world.trial(trial.params["family"], settings)
            models.append(model)
            new.append(of_new)
            if not by_gain:
                study.tell(trial, kl(rows, model))
                continue
            reference = model if reference is None else reference
            study.tell(trial, rows.gain(reference, model).mean)
            if (number + 1) % self.renew_every == 0:
                reference, study = self._renewed(np.stack(models), study)
        fit = fit_reference(rows, np.stack(models), world.patients)
        nested = kl(rows, predict_folds(rows, np.stack(models), fit.by_fold))
        return nested, kl(world.new, fit.weights @ np.stack(new))

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = self.seed * 1000 + number
        if self.method == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, n_startup_trials=STARTUP_TRIALS
        )

    def _renewed(self, models: np.ndarray, before: optuna.Study) -> tuple[np.ndarray, optuna.Study]:
        rows = self.world.rows
        fit = fit_reference(rows, models, self.world.patients)
        reference = predict_folds(rows, models, fit.by_fold)
        study = optuna.create_study(direction="maximize")
        for trial in before.trials:
            value = self._gain(reference, fit, models[trial.number], trial.number)
            study.add_trial(
                optuna.trial.create_trial(params=trial.params, distributions=SETTINGS, value=value)
            )
        return reference, study

    def _gain(
        self, reference: np.ndarray, fit: ReferenceFit, model: np.ndarray, number: int
    ) -> float:
        rows = self.world.rows
        if number in fit.members:
            reference = predict_without(rows, reference, model, fit.by_fold[:, number])
        return rows.gain(reference, model).mean


def kl(rows: GainRows, probabilities: np.ndarray) -> float:
    """Mean KL of the rows, from the probabilities of their entries."""
    targets = rows.shares * rows.n_scored
    return float(rows.shares @ np.log(targets / probabilities))


def print_table(seeds: range, n_trials: int, renew_every: int) -> None:
    n_seeds = len(seeds)
    print(
        f"seeds {seeds.start} to {seeds.stop - 1}, {n_trials} trials, renewed every {renew_every}"
    )
    difference = "KL on new rows minus that of search by KL: median, mean, SE"
    print(f"| world | search | nested KL | KL on new rows | {difference} | lower |")
    print("|---|---|---|---|---|---|")
    for kind in WORLDS:
        found = {
            method: np.array(
                [
                    Search(World(seed, kind), method, seed, renew_every).run(n_trials)
                    for seed in seeds
                ]
            )
            for method in ("kl", "gain", "random")
        }
        for method, losses in found.items():
            nested, new = losses.T
            difference = new - found["kl"][:, 1]
            error = difference.std(ddof=1) / n_seeds**0.5 if n_seeds > 1 else float("nan")
            print(
                f"| {kind} | {method} | {np.median(nested):.4f} | {np.median(new):.4f} "
                f"| {np.median(difference):+.4f}, {difference.mean():+.4f}, {error:.4f} "
                f"| {(difference < 0).sum()} of {n_seeds} |",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--renew-every", type=int, default=10)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with threadpool_limits(1):
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        print_table(seeds, options.trials, options.renew_every)
