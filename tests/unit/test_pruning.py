import numpy as np
import optuna
import pytest
from scipy import stats

from hms_ray.config.loading import validate_space
from hms_ray.config.pruning import PruneConfig
from hms_ray.evaluate.intervals import clustered_interval
from hms_ray.search.pruning import (
    Noise,
    PatientFolds,
    compare,
    decide,
    earliest_wilcoxon_fold,
    training_noise,
)
from hms_ray.study.identity import space_identity
from tests.simulated_trials import simulated_patients, simulated_trials

OWNERS = np.repeat(np.arange(12), [3, 1, 2, 5, 1, 1, 4, 2, 3, 1, 2, 3])
fold_of = OWNERS % 3
RNG = np.random.default_rng(3)
PATIENTS = PatientFolds.of(OWNERS, fold_of, np.ones(len(OWNERS), bool))


def test_sums_by_patient_hold_fold_means_and_running_means() -> None:
    counted = RNG.random(len(OWNERS)) < 0.8
    patients = PatientFolds.of(OWNERS, fold_of, counted)
    scores = RNG.random(len(OWNERS))
    sums = patients.sums(scores)
    means = [scores[counted & (fold_of == fold)].mean() for fold in range(3)]
    np.testing.assert_allclose(patients.fold_means(sums), means)
    first_two = scores[counted & (fold_of < 2)].mean()
    np.testing.assert_allclose(patients.running_mean(sums, 2), first_two)


def test_levels_of_all_looks_but_the_last_sum_to_the_level() -> None:
    levels = [PATIENTS.level_of_look(n_folds, 0.05) for n_folds in (1, 2)]
    assert sum(levels) == pytest.approx(0.05)
    assert levels[0] / levels[1] == pytest.approx((fold_of == 0).sum() / (fold_of == 1).sum())


def test_comparison_is_that_of_plain_numpy() -> None:
    best, trial = RNG.random(len(OWNERS)), RNG.random(len(OWNERS)) + 0.1
    noise, shared = Noise(tau=0.05, freedom=30), fold_of < 2
    found = compare(PATIENTS.sums(trial), PATIENTS.sums(best), PATIENTS, 2, noise, 0.05)
    interval = clustered_interval((trial - best)[shared], OWNERS[shared])
    n = np.array([(fold_of == fold).sum() for fold in (0, 1)])
    training = 0.05**2 * (n**2).sum() / n.sum() ** 2
    clustered = interval.standard_error**2
    freedom = (clustered + training) ** 2 / (
        clustered**2 / (interval.n_patients - 1) + training**2 / 30
    )
    error = (clustered + training) ** 0.5
    assert found.difference == pytest.approx(interval.mean)
    assert found.standard_error == pytest.approx(error)
    assert found.p_value == pytest.approx(stats.t.sf(interval.mean / error, freedom))
    assert found.estimate == pytest.approx(best.mean() + interval.mean)


def test_equal_folds_give_tau_squared_over_k() -> None:
    patients = PatientFolds.of(np.arange(20), np.arange(20) % 5, np.ones(20, bool))
    sums = np.zeros(20)
    found = compare(sums + 1, sums, patients, 4, Noise(0.1, 10), 0.05)
    assert found.standard_error**2 == pytest.approx(0.1**2 / 4)


@pytest.mark.parametrize("fold_noise", [0.0, 0.01, 0.03])
def test_training_noise_is_recovered_beyond_what_patients_explain(fold_noise: float) -> None:
    generator = np.random.default_rng(0)
    patients = simulated_patients(generator)
    trials = simulated_trials(generator, patients, generator.random(120) * 0.01, fold_noise)
    found = training_noise(trials, patients, PruneConfig(tau_trials=1))
    assert found.tau == pytest.approx(2**0.5 * fold_noise, rel=0.15, abs=0.004)


def test_assumed_noise_counts_as_its_number_of_trials() -> None:
    generator = np.random.default_rng(0)
    patients = simulated_patients(generator)
    trials = simulated_trials(generator, patients, np.zeros(20), 0.0)
    assumed = PruneConfig(tau=0.1, tau_trials=10)
    assert training_noise(trials[:0], patients, assumed).tau == 0.1
    # The better half, ten trials, without noise: as much weight as the assumed one.
    assert training_noise(trials, patients, assumed).tau == pytest.approx(0.1 / 2**0.5, rel=0.05)


def decided(rule: str, trial: list[float], *finished: list[float], **values: object) -> str:
    """Reason of the stop after as many folds as the trial has; folds of 4 patients of 1 row."""
    n_folds = len(finished[0])
    patients = PatientFolds.of(
        np.arange(4 * n_folds), np.arange(4 * n_folds) % n_folds, np.ones(4 * n_folds, bool)
    )
    full = [*trial, *[0.0] * (n_folds - len(trial))]
    sums = [np.array(means)[patients.folds] for means in (full, *finished)]
    config = PruneConfig.model_validate({"rule": rule, "min_trials": 1, **values})
    return decide(config, sums[0], len(trial), np.array(sums[1:]), [], patients).reason


BEST = [0.5, 0.6, 0.7, 0.8, 0.9]
OTHERS = [[value + step for value in BEST] for step in (0.02, 0.04, 0.06)]


@pytest.mark.parametrize("rule", ["paired", "median", "successive_halving"])
def test_clearly_worse_trial_is_stopped_after_its_first_fold_and_a_better_one_is_not(
    rule: str,
) -> None:
    assert decided(rule, [0.9], BEST, *OTHERS)
    assert not decided(rule, [0.45], BEST, *OTHERS)


@pytest.mark.parametrize("rule", ["paired", "median", "successive_halving", "wilcoxon"])
def test_no_rule_stops_after_the_last_fold(rule: str) -> None:
    assert not decided(rule, [9.0] * 5, BEST, *OTHERS)


def test_nothing_is_stopped_without_a_rule_or_before_enough_trials_and_folds() -> None:
    assert not decided("none", [9.0], BEST, *OTHERS)
    assert not decided("paired", [9.0], BEST, *OTHERS, min_trials=5)
    assert not decided("paired", [9.0], BEST, *OTHERS, min_folds=2)


def test_median_and_halving_compare_running_means_of_the_same_folds() -> None:
    # Worse than the median in fold 0, better over both folds.
    trial = [0.56, 0.50]
    assert decided("median", trial[:1], BEST, *OTHERS)
    assert not decided("median", trial, BEST, *OTHERS)
    assert not decided("successive_halving", [*trial, 9.0], BEST, *OTHERS)  # 3 is no rung
    assert decided("successive_halving", [*trial, 9.0, 9.0], BEST, *OTHERS)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_wilcoxon_decides_as_that_of_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seen = set()
    for _ in range(30):
        trial = RNG.normal(0.75, 0.1, size=6)
        study = optuna.create_study(
            pruner=optuna.pruners.WilcoxonPruner(p_threshold=0.1, n_startup_steps=2)
        )
        finished = [*BEST, 0.8]
        for means, state in ((finished, True), (trial.tolist(), False)):
            asked = study.ask()
            for fold, mean in enumerate(means[:5]):
                asked.report(mean, fold)
            if state:
                study.tell(asked, float(np.mean(means)))
        expected = asked.should_prune()
        assert bool(decided("wilcoxon", trial[:5].tolist(), finished, level=0.1)) == expected
        seen.add(expected)
    assert seen == {True, False}


def test_earliest_fold_of_wilcoxon_is_the_one_whose_least_p_value_is_below_the_level() -> None:
    assert [earliest_wilcoxon_fold(level) for level in (0.3, 0.1, 0.05)] == [2, 4, 5]
    worse = [mean + 0.1 + fold / 100 for fold, mean in enumerate(BEST)]
    assert not decided("wilcoxon", worse[:3], BEST, level=0.1)
    assert decided("wilcoxon", worse[:4], BEST, level=0.1)


def test_folds_without_a_counted_row_decide_nothing() -> None:
    counted = fold_of > 0
    patients = PatientFolds.of(OWNERS, fold_of, counted)
    sums = np.stack([patients.sizes * 0.5] * 4)
    found = decide(PruneConfig(), patients.sizes * 9.0, 1, sums, [], patients)
    assert (found.stop, np.isnan(found.estimate)) == (False, True)


def test_pruning_is_no_part_of_the_identity_of_a_study() -> None:
    spaces = [validate_space({"prune": rule}, "test") for rule in ("none", "median")]
    assert space_identity(spaces[0]) == space_identity(spaces[1])
    assert spaces[0].prune == PruneConfig(rule="none")
