import numpy as np
import optuna
import pytest
from scipy import stats

from hms_ray.config.loading import validate_space
from hms_ray.config.pruning import PruneConfig
from hms_ray.errors import ConfigError
from hms_ray.evaluate.intervals import clustered_interval
from hms_ray.search.patient_folds import PatientFolds
from hms_ray.search.pruning import compare, decide, pruning_text, rival
from hms_ray.search.training_noise import Noise, training_noise
from hms_ray.study.identity import space_identity
from tests.refused import refusal, refused
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


def test_estimate_is_the_best_trials_mean_plus_the_difference_on_shared_rows() -> None:
    scores = RNG.random((3, len(OWNERS))) + np.array([[0.2], [0.0], [0.1]])
    trial, shared = RNG.random(len(OWNERS)), fold_of < 2
    finished = np.stack([PATIENTS.sums(one) for one in scores])
    found = decide(PruneConfig(), PATIENTS.sums(trial), 2, finished, [], PATIENTS)
    expected = scores[1].mean() + (trial - scores[1])[shared].mean()
    assert found.estimate == pytest.approx(expected)


def test_rival_is_the_best_trial_in_the_folds_that_are_not_tested() -> None:
    generator = np.random.default_rng(1)
    scores = generator.random((9, len(OWNERS)))
    finished = np.stack([PATIENTS.sums(one) for one in scores])
    for n_folds in (1, 2):
        means = scores[:, fold_of >= n_folds].mean(axis=1)
        assert rival(finished, PATIENTS, n_folds) == means.argmin()


def test_trials_as_good_as_all_others_are_stopped_as_often_as_the_level_says() -> None:
    """The best of many equal trials is the lucky one: against it, most would look worse."""
    generator = np.random.default_rng(2)
    patients = simulated_patients(generator, 100)
    config = PruneConfig(level=0.4, tau=0.02)
    stopped, against_best = [], []
    for _ in range(300):
        trials = simulated_trials(generator, patients, np.zeros(31), 0.02)
        finished, trial = trials[1:], trials[0]
        stopped.append(decide(config, trial, 1, finished, [], patients).stop)
        best = finished[finished.sum(axis=1).argmin()]
        noise = training_noise(finished, patients, config)
        found = compare(trial, best, patients, 1, noise, config.level)
        against_best.append(found.p_value < found.level)
    level = patients.level_of_look(1, 0.4)  # near 0.1
    assert np.mean(stopped) == pytest.approx(level, abs=3 * (0.1 * 0.9 / 300) ** 0.5)
    assert np.mean(against_best) > 2 * level


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
    trials = simulated_trials(generator, patients, np.zeros(40), 0.01)
    trials = trials[np.argsort(trials.sum(axis=1))]
    assumed = PruneConfig(tau=0.1, tau_trials=3)
    assert training_noise(trials[:1], patients, assumed) == Noise(0.1, 3 * 4)
    # All of up to 10 trials, 10 of up to 20, the better half of more.
    for n_trials, n_used in ((2, 2), (9, 9), (15, 10), (40, 20)):
        used = trials[:n_used]
        means = patients.fold_means(used)
        residuals = means - means.mean(axis=1, keepdims=True) - means.mean(axis=0) + means.mean()
        sampling = []
        for one in used - used.mean(axis=0):
            scores = np.repeat(one / patients.sizes, patients.sizes.astype(int))
            owners = np.repeat(np.arange(len(one)), patients.sizes.astype(int))
            folds = patients.folds[owners]
            for fold in range(5):
                interval = clustered_interval(scores[folds == fold], owners[folds == fold])
                sampling.append(interval.standard_error**2)
        freedom = (n_used - 1) * 4
        correction = np.mean(sampling) * n_used / (n_used - 1)
        found = 2 * ((residuals**2).sum() / freedom - correction)
        expected = (12 * 0.1**2 + freedom * max(found, 0)) / (12 + freedom)
        noise = training_noise(trials[:n_trials], patients, assumed)
        assert (noise.tau**2, noise.freedom) == pytest.approx((expected, 12 + freedom))


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
    seen, finished = set(), [*BEST, 0.8]
    for number in range(40):
        known = 4 + number % 2
        trial = np.array(finished[:known]) + RNG.uniform(0, 0.1) + RNG.normal(0, 0.01, known)
        study = optuna.create_study(
            pruner=optuna.pruners.WilcoxonPruner(p_threshold=0.1, n_startup_steps=2)
        )
        for means, state in ((finished, True), (trial.tolist(), False)):
            asked = study.ask()
            for fold, mean in enumerate(means):
                asked.report(mean, fold)
            if state:
                study.tell(asked, float(np.mean(means)))
        expected = asked.should_prune()
        assert bool(decided("wilcoxon", trial.tolist(), finished, level=0.1)) == expected
        # Optuna's safeguard: its mean is still better than that of all the best trial's folds.
        worse = stats.wilcoxon(trial - finished[:known], alternative="greater").pvalue < 0.1
        seen.add((expected, bool(worse)))
    assert seen == {(True, True), (False, True), (False, False)}


def test_earliest_fold_of_wilcoxon_is_the_one_whose_least_p_value_is_below_the_level() -> None:
    levels = (0.3, 0.1, 0.05)
    configs = [PruneConfig(rule="wilcoxon", level=level) for level in levels]
    assert [config.earliest_stop for config in configs] == [2, 4, 5]
    worse = [mean + 0.2 + fold / 100 for fold, mean in enumerate(BEST)]
    assert not decided("wilcoxon", worse[:3], BEST, level=0.1)
    assert decided("wilcoxon", worse[:4], BEST, level=0.1)
    assert stats.wilcoxon([1, 2, 3, 4], alternative="greater").pvalue == 0.5**4


@pytest.mark.parametrize(
    ("values", "n_folds", "earliest"),
    [
        ({"rule": "wilcoxon"}, 5, 5),
        ({"rule": "wilcoxon", "level": 0.1}, 4, 4),
        ({"rule": "paired", "min_folds": 5}, 5, 5),
        ({"rule": "successive_halving", "min_folds": 3}, 4, 4),
    ],
)
def test_a_rule_that_can_stop_no_trial_is_refused(
    values: dict[str, object], n_folds: int, earliest: int
) -> None:
    config = PruneConfig.model_validate(values)
    assert config.earliest_stop == earliest
    fix = "prune.level above" if config.rule == "wilcoxon" else f"at most {n_folds - 1}"
    with refusal(
        ConfigError,
        f"prune must be able to stop a trial before the last of {n_folds} folds",
        got=f"{config.rule} with min_folds",
        where="prune",
        fix=fix,
    ):
        config.require_effect(n_folds)
    config.require_effect(n_folds + 1)


def test_the_level_in_the_remedy_lets_wilcoxon_stop_a_trial() -> None:
    found = refused(PruneConfig(rule="wilcoxon").require_effect, 5)
    assert "above 0.0625" in str(found.fix)
    PruneConfig(rule="wilcoxon", level=0.063).require_effect(5)
    with pytest.raises(ConfigError):
        PruneConfig(rule="wilcoxon", level=0.0625).require_effect(5)


def test_the_earliest_stop_is_printed() -> None:
    text = pruning_text(PruneConfig(rule="wilcoxon", level=0.1), 5)
    expected = "pruning: wilcoxon, after 3 finished trials, at the earliest after 4 folds of 5"
    assert text == expected
    assert pruning_text(PruneConfig(), 5).endswith("at the earliest after 1 fold of 5")
    assert pruning_text(PruneConfig(rule="none"), 5) == ""
    never = pruning_text(PruneConfig(rule="wilcoxon"), 5)
    assert never == "pruning: wilcoxon can stop no trial of 5 folds"


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
