from pathlib import Path

import numpy as np
import pytest

from hms_ray.config.pruning import PruneConfig
from hms_ray.dataset.prepare import Prepared
from hms_ray.display.replay_table import render_replay
from hms_ray.errors import StudyError
from hms_ray.search.replay import replay_order, replay_rule, replay_study
from hms_ray.study.new import create_study
from tests.refused import refusal
from tests.simulated_trials import simulated_patients, simulated_trials
from tests.study_data import make_result, make_space

GENERATOR = np.random.default_rng(2)
PATIENTS = simulated_patients(GENERATOR, 100)
TRUTHS = np.linspace(0.0, 1.0, 12)
TRIALS = simulated_trials(GENERATOR, PATIENTS, TRUTHS, 0.005)
ORDERS = [GENERATOR.permutation(12) for _ in range(5)]


def test_replay_counts_folds_hours_and_loss() -> None:
    found = replay_rule(PruneConfig(), TRIALS, PATIENTS, np.full(12, 50.0), ORDERS)
    folds = [sum(replay_order(PruneConfig(), TRIALS[order], PATIENTS)) for order in ORDERS]
    np.testing.assert_allclose(found.folds, np.array(folds) / 60)
    # Each fold takes 10 minutes.
    np.testing.assert_allclose(found.hours, (60 - np.array(folds)) / 6)
    assert found.best_pruned == 0
    assert not found.lost.any()
    assert found.folds.max() < 0.8


def test_rule_that_stops_the_best_trial_shows_its_loss() -> None:
    scores = TRIALS.sum(axis=1) / PATIENTS.sizes.sum()
    # Fold 0 is the best trial's worst.
    trials = TRIALS.copy()
    trials[0, PATIENTS.folds == 0] += 3 * PATIENTS.sizes[PATIENTS.folds == 0]
    trials[0, PATIENTS.folds > 0] -= 3 * PATIENTS.sizes[PATIENTS.folds > 0]
    order = [np.array([*range(1, 12), 0])]
    found = replay_rule(PruneConfig(rule="median"), trials, PATIENTS, np.ones(12), order)
    means = trials.sum(axis=1) / PATIENTS.sizes.sum()
    assert found.best_pruned == 1
    assert found.lost[0] == pytest.approx(min(means[1:]) - means[0])
    assert scores[1] > 0
    text = render_replay([vars(found)], "KL >=10", 12)
    assert "median" in text
    assert "100%" in text


def test_study_with_few_trials_is_refused(tmp_path: Path, prepared: Prepared) -> None:
    space = make_space()
    study = create_study(tmp_path, "one", space, prepared)
    study.write_trial(0, {}, space.experiment, make_result(0.5))
    with refusal(
        StudyError,
        "a replay needs 5 trials with all folds",
        got="1",
        where=str(study.path),
        fix="hms-ray sweep FILE --set prune=none",
    ):
        replay_study(study, 3, 0)
    for number in range(1, 5):
        study.write_trial(number, {}, space.experiment, make_result(0.5))
    found = {one.rule: one for one in replay_study(study, 3, 0)}
    assert set(found) == {"paired", "median", "successive_halving", "wilcoxon", "none"}
    assert (found["none"].folds == 1).all()
