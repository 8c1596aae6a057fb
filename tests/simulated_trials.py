"""Trials of a simulated study as summed row scores: no training, the noise of training known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hms_ray.config.pruning import PruneConfig
from hms_ray.evaluate.metric import Array
from hms_ray.search.patient_folds import PatientFolds
from hms_ray.search.pruning import decide

N_PATIENTS = 400
N_FOLDS = 5
PATIENT_SD = 0.05
"""Nats: how differently two trials score one patient, beyond the noise of folds."""
ALONE = PruneConfig(tau=1e-9, tau_trials=10**9)
"""Patient clustering alone: training noise is taken as 0, whatever the trials show."""


def simulated_patients(
    generator: np.random.Generator, n_patients: int = N_PATIENTS
) -> PatientFolds:
    """Patients with 1 to some 20 rows in five folds of about equal rows."""
    sizes = 1 + generator.geometric(0.25, size=n_patients)
    owners = np.repeat(np.arange(n_patients), sizes)
    folds = generator.permutation(n_patients) % N_FOLDS
    return PatientFolds.of(owners, folds[owners], np.ones(len(owners), bool))


def simulated_trials(
    generator: np.random.Generator, patients: PatientFolds, truths: Array, fold_noise: float
) -> Array:
    """(J, G) summed scores of trials with the given true scores on common rows."""
    shape = (len(truths), len(patients.sizes))
    own = generator.normal(0, PATIENT_SD / 2**0.5, size=shape)
    noise = generator.normal(0, fold_noise, size=(len(truths), patients.n_folds))
    means = np.asarray(truths)[:, None] + own + noise[:, patients.folds]
    summed: Array = means * patients.sizes
    return summed


@dataclass
class SimulatedStudy:
    """Trials run one after the other, pruned by a rule.

    Attributes:
        config: the rule.
        patients: rows of the study.
        finished: summed scores of the trials with all folds.
        stopped: summed scores and known folds of the others.
    """

    config: PruneConfig
    patients: PatientFolds
    finished: list[Array]
    stopped: list[tuple[Array, int]]

    @classmethod
    def new(cls, config: PruneConfig, patients: PatientFolds) -> "SimulatedStudy":
        return cls(config, patients, [], [])

    def run(self, sums: Array) -> tuple[int, float]:
        """Trains folds of a trial until it is stopped; returns folds and the last estimate."""
        finished = np.array(self.finished).reshape(-1, len(sums))
        for n_folds in range(1, self.patients.n_folds + 1):
            found = decide(self.config, sums, n_folds, finished, self.stopped, self.patients)
            if found.stop:
                self.stopped.append((sums, n_folds))
                return n_folds, found.estimate
        self.finished.append(sums)
        return self.patients.n_folds, found.estimate


def loses_best(
    generator: np.random.Generator,
    config: PruneConfig,
    n_trials: int,
    spread: float,
    fold_noise: float,
) -> bool:
    """Whether a rule stops the trial that is in truth the best of a study."""
    patients = simulated_patients(generator)
    truths: NDArray[np.float64] = generator.uniform(0, spread, n_trials)
    trials = simulated_trials(generator, patients, truths, fold_noise)
    study, best = SimulatedStudy.new(config, patients), int(np.argmin(truths))
    n_folds = [study.run(sums)[0] for sums in trials[: best + 1]]
    return n_folds[-1] < N_FOLDS
