from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.errors import PredictionError
from hms_ray.evaluate.calibration import nested_recalibration
from hms_ray.evaluate.intervals import (
    clustered_interval,
    paired_difference,
)
from hms_ray.evaluate.metric import kl_report, kl_rows
from hms_ray.evaluate.step_scores import (
    GROUPS,
    RESOLUTION,
    STAGE_2,
    GroupRows,
    StepDifference,
    combine_rows,
    row_groups,
    row_scores,
    score_steps,
)
from tests.ladder_data import ladder, probabilities

BASELINES = [None, 0, 0, 0, 2, 2]
PANELS, COPY, AVERAGED, SHARP = range(4)


def parts() -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    rows, results = ladder()
    return (
        rows[list(TARGET_COLUMNS)].to_numpy(),
        rows["total_votes"].to_numpy(),
        rows["patient_id"].to_numpy(),
        [probabilities(result) for result in results],
    )


def test_groups_are_all_rows_two_tiers_and_the_second_stage() -> None:
    targets = np.eye(6)[[0, 0, 0, 0, 0]]
    targets[1] = [0.75, 0.25, 0, 0, 0, 0]
    groups = row_groups(targets, np.array([4, 4, 3, 5, 10]))
    assert groups["kl_all"].tolist() == [True] * 5
    assert groups["kl_4"].tolist() == [True, True, False, True, True]
    assert groups["kl_10"].tolist() == [False] * 4 + [True]
    assert groups[STAGE_2].tolist() == [True, False, False, True, True]


def test_scores_and_intervals_match_metric_and_intervals() -> None:
    targets, votes, patients, predictions = parts()
    scores = score_steps(row_scores(targets, votes, patients, predictions), BASELINES, seed=3)
    for step, predicted in zip(scores, predictions, strict=True):
        for group, kl in kl_report(targets, predicted, votes).items():
            found = step[group]
            assert found.kl.mean == pytest.approx(kl, rel=1e-12)
    rows = kl_rows(targets, predictions[AVERAGED]), kl_rows(targets, predictions[PANELS])
    chosen = votes >= 10
    found = scores[AVERAGED]["kl_10"]
    assert found.kl == clustered_interval(rows[0][chosen], patients[chosen])
    expected = paired_difference(rows[0][chosen], rows[1][chosen], patients[chosen])
    assert vars(found.difference).items() >= vars(expected).items()
    assert found.difference is not None
    assert found.difference.verdict == "better"


def test_recalibration_is_fitted_on_the_rows_of_the_group() -> None:
    targets, votes, patients, predictions = parts()
    rows = row_scores(targets, votes, patients, predictions, seed=2)
    for group, chosen in row_groups(targets, votes).items():
        corrected = nested_recalibration(
            targets[chosen], predictions[AVERAGED][chosen], patients[chosen], seed=2
        )
        found = rows[group]
        assert found.recalibrated is not None
        expected = kl_rows(targets[chosen], corrected)
        np.testing.assert_allclose(found.recalibrated[AVERAGED], expected, rtol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_sharper_step_is_a_tie_after_recalibration(seed: int) -> None:
    rows, results = ladder(seed=seed)
    targets = rows[list(TARGET_COLUMNS)].to_numpy()
    predictions = [probabilities(results[number]) for number in (PANELS, SHARP)]
    scores = score_steps(
        row_scores(targets, rows["total_votes"], rows["patient_id"], predictions), [None, 0]
    )
    for group in GROUPS:
        found = scores[1][group]
        assert found.difference is not None
        assert found.recalibrated_difference is not None
        assert found.difference.verdict == "worse"
        assert found.recalibrated_difference.verdict == "tie"


def test_difference_that_prints_as_zero_is_a_tie() -> None:
    tiny = StepDifference(-0.9 * RESOLUTION, -RESOLUTION, -0.8 * RESOLUTION, 10, 5)
    assert tiny.verdict == "tie"
    assert StepDifference(-2 * RESOLUTION, -3e-4, -RESOLUTION, 10, 5).verdict == "better"
    assert StepDifference(2e-4, -3e-4, 1e-3, 10, 5).verdict == "tie"


def test_smallest_detectable_difference_is_found_in_four_of_five_trials() -> None:
    generator = np.random.default_rng(0)
    n, sd = 25, 0.3
    truth = (stats.t.ppf(0.975, n - 1) + stats.t.ppf(0.8, n - 1)) * sd / np.sqrt(n)
    found, sizes = 0, []
    for _ in range(2000):
        rows = generator.normal(truth, sd, size=n)
        difference = StepDifference(**vars(paired_difference(rows, np.zeros(n), np.arange(n))))
        found += difference.verdict == "worse"
        sizes.append(difference.detectable)
    assert np.mean(sizes) == pytest.approx(truth, rel=0.02)
    assert found / 2000 == pytest.approx(0.8, abs=0.03)


def test_first_step_and_group_without_rows_have_no_difference() -> None:
    targets, votes, patients, predictions = parts()
    scores = score_steps(
        row_scores(targets, np.minimum(votes, 9), patients, predictions), BASELINES
    )
    assert "kl_10" not in scores[PANELS]
    first = scores[PANELS]["kl_all"]
    assert first.difference is None
    assert first.recalibrated_difference is None


def test_one_patient_has_no_interval_and_no_recalibration() -> None:
    targets, votes, patients, predictions = parts()
    one = np.zeros_like(patients)
    scores = score_steps(row_scores(targets, votes, one, predictions), BASELINES)
    found = scores[COPY]["kl_all"]
    assert found.recalibrated is None
    assert found.difference is not None
    plain = found.difference.to_json()
    assert (plain["low"], plain["verdict"], plain["detectable"]) == (None, "tie", None)
    assert found.kl.to_json()["low"] is None


def test_combined_ladders_keep_their_patients_apart() -> None:
    targets, votes, patients, predictions = parts()
    one = row_scores(targets, votes, patients, predictions)
    combined = combine_rows([[one], [one], [one]])
    rows, alone = combined["kl_all"], one["kl_all"]
    assert len(np.unique(rows.patients)) == 3 * len(np.unique(patients))
    np.testing.assert_array_equal(rows.raw, np.tile(alone.raw, 3))
    once, thrice = (score_steps(part, BASELINES)[AVERAGED]["kl_all"] for part in (one, combined))
    assert thrice.kl.mean == pytest.approx(once.kl.mean)
    ratio = (thrice.kl.high - thrice.kl.low) / (once.kl.high - once.kl.low)
    assert ratio == pytest.approx(1 / np.sqrt(3), rel=0.05)


def test_group_that_one_ladder_lacks_is_combined_from_the_others() -> None:
    targets, votes, patients, predictions = parts()
    full = row_scores(targets, votes, patients, predictions)
    few = row_scores(targets, np.minimum(votes, 9), patients, predictions)
    combined = combine_rows([[few], [full]])
    np.testing.assert_array_equal(combined["kl_10"].raw, full["kl_10"].raw)
    assert "kl_10" not in combine_rows([[few]])
    alone = {name: GroupRows(np.ones((6, 2)), None, np.zeros(2)) for name in GROUPS}
    assert combine_rows([[alone], [full]])["kl_all"].recalibrated is None


def test_seeds_on_the_same_rows_are_averaged_and_priced() -> None:
    targets, votes, patients, predictions = parts()
    generator = np.random.default_rng(3)

    def run() -> list[np.ndarray]:
        """The predictions of another training seed: all rows of a step move together."""
        noisy = [p ** generator.uniform(0.7, 1.4) for p in predictions]
        return [p / p.sum(axis=1, keepdims=True) for p in noisy]

    runs = [run() for _ in range(3)]
    fewer = slice(0, 150)
    others = [[p[fewer] for p in run()] for _ in range(2)]
    sets = [
        [row_scores(targets, votes, patients, one) for one in runs],
        [row_scores(targets[fewer], votes[fewer], patients[fewer], one) for one in others],
    ]
    found = score_steps(combine_rows(sets), BASELINES)[SHARP]["kl_all"].difference
    assert found is not None

    # The same in plain NumPy.
    def differences(truth: np.ndarray, runs: list[list[np.ndarray]]) -> np.ndarray:
        return np.stack([kl_rows(truth, one[SHARP]) - kl_rows(truth, one[PANELS]) for one in runs])

    first, second = differences(targets, runs), differences(targets[fewer], others)
    rows = np.concatenate([first.mean(axis=0), second.mean(axis=0)])
    owners = np.concatenate([patients, patients[fewer] + 10_000])
    _, owner = np.unique(owners, return_inverse=True)
    n_patients, n = owner.max() + 1, len(rows)
    sums = np.bincount(owner, weights=rows - rows.mean())
    parts_of = [(n_patients / (n_patients - 1) * (sums**2).sum() / n**2, n_patients - 1)]
    for table in (first, second):
        means = table.mean(axis=1)
        spread = ((means - means.mean()) ** 2).sum() / (len(means) - 1)
        share = table.shape[1] / n
        parts_of.append((share**2 * spread / len(means), len(means) - 1))
    variance = sum(part for part, _ in parts_of)
    degrees = variance**2 / sum(part**2 / own for part, own in parts_of)
    width = stats.t.ppf(0.975, degrees) * np.sqrt(variance)
    assert found.mean == pytest.approx(rows.mean())
    assert (found.low, found.high) == pytest.approx((rows.mean() - width, rows.mean() + width))
    assert found.n_patients == n_patients
    assert found.degrees == pytest.approx(degrees)
    error = (stats.t.ppf(0.975, degrees) + stats.t.ppf(0.8, degrees)) * np.sqrt(variance)
    assert found.detectable == pytest.approx(error)
    assert parts_of[1][0] > 1e-3 * variance, "the seeds matter here"
    assert found.priced


def test_one_seed_on_one_of_the_data_sets_is_not_priced() -> None:
    targets, votes, patients, predictions = parts()
    one = row_scores(targets, votes, patients, predictions)
    other = row_scores(targets, votes, patients, [p[:, ::-1] for p in predictions])
    unpriced = score_steps(combine_rows([[one, other], [one]]), BASELINES)[SHARP]["kl_all"]
    assert unpriced.difference is not None
    assert not unpriced.difference.priced
    assert unpriced.difference.degrees is None


def test_missing_steps_and_baselines_are_refused() -> None:
    targets, votes, patients, predictions = parts()
    with pytest.raises(PredictionError, match=r"must have steps, got none"):
        row_scores(targets, votes, patients, [])
    rows = row_scores(targets, votes, patients, predictions[:2])
    with pytest.raises(PredictionError, match=r"one baseline, or None, per step, got 6 for 2"):
        score_steps(rows, BASELINES)
