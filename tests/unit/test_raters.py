"""Experts' votes: their odds, their agreement, and which features make which class."""

import numpy as np
import pytest

from hms_ray.competition.schema import CLASSES, VOTE_TIERS
from hms_ray.simulate.raters import (
    EXPERT_TIERS,
    N_FEATURES,
    VOTE_TOTALS,
    ExpertTier,
    draw_total,
    expert_tiers,
    vote_odds,
)
from hms_ray.simulate.raters import draw_votes as draw_votes_of

FEW, SOME, MANY = EXPERT_TIERS
# visibility, evolution, log rate, sharpness, asymmetry
CLEAR = {
    "Seizure": (2.0, 0.95, np.log(5.0), 0.5, 0.8),
    "LPD": (2.0, 0.05, np.log(1.0), 0.95, 0.85),
    "GPD": (2.0, 0.05, np.log(1.5), 0.95, 0.05),
    "LRDA": (2.0, 0.05, np.log(1.5), 0.05, 0.85),
    "GRDA": (2.0, 0.05, np.log(1.5), 0.05, 0.05),
    "Other": (-3.0, 0.0, 0.0, 0.0, 0.0),
}


def draw_votes(
    features: np.ndarray, group: ExpertTier, total: int, rng: np.random.Generator
) -> np.ndarray:
    """Votes on one of many patients."""
    return draw_votes_of(features, group, total, rng.standard_normal(N_FEATURES), rng)


def some_features(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low, high = np.array([-1, 0, -0.5, 0, 0]), np.array([2, 0.8, 1.3, 1, 1])
    return rng.uniform(low, high, (n, N_FEATURES))


@pytest.mark.parametrize("group", EXPERT_TIERS, ids=lambda group: group.name)
def test_odds_are_distributions_without_zeros(group) -> None:
    odds = vote_odds(some_features(500), group)
    assert odds.shape == (500, 6)
    np.testing.assert_allclose(odds.sum(axis=-1), 1, rtol=0, atol=1e-12)
    assert odds.min() > 0


@pytest.mark.parametrize("name", CLASSES)
def test_clear_pattern_gets_most_votes_of_every_tier(name: str) -> None:
    for group in EXPERT_TIERS:
        odds = vote_odds(np.array(CLEAR[name]), group)
        assert CLASSES[int(odds.argmax())] == name
        assert odds.max() > (0.8 if group is MANY else 0.55)


def test_doubtful_feature_splits_the_votes_between_two_classes() -> None:
    between = np.array(CLEAR["LPD"])
    between[4] = 0.45
    odds = dict(zip(CLASSES, vote_odds(between, MANY), strict=True))
    assert odds["LPD"] == pytest.approx(odds["GPD"], rel=0.15)
    assert odds["LPD"] + odds["GPD"] > 0.8


@pytest.mark.parametrize("group", EXPERT_TIERS, ids=lambda group: group.name)
def test_odds_are_the_frequencies_of_drawn_votes(group) -> None:
    rng = np.random.default_rng(1)
    features = some_features(5, seed=3)
    for row, odds in zip(features, vote_odds(features, group), strict=True):
        drawn = np.mean([draw_votes(row, group, 3, rng) / 3 for _ in range(3_000)], axis=0)
        # Three votes of few-vote experts hardly differ, so 3,000 draws have a deviation of 0.009.
        np.testing.assert_allclose(drawn, odds, rtol=0, atol=0.04)


def test_votes_sum_to_their_total() -> None:
    rng = np.random.default_rng(0)
    for total in (1, 3, 17):
        votes = draw_votes(np.array(CLEAR["GRDA"]), MANY, total, rng)
        assert votes.shape == (6,)
        assert votes.sum() == total


def unanimous(group, total: int) -> float:
    rng = np.random.default_rng(2)
    drawn = [draw_votes(row, group, total, rng) for row in some_features(2_000, seed=5)]
    return float(np.mean([votes.max() == total for votes in drawn]))


def test_few_voters_share_their_error() -> None:
    independent = np.mean(vote_odds(some_features(2_000, seed=5), FEW) ** 3 @ np.ones(6))
    assert unanimous(FEW, 3) > independent + 0.2
    assert unanimous(FEW, 3) > unanimous(MANY, 3) + 0.05


def test_few_votes_are_noisier_than_many() -> None:
    features = some_features(1_000, seed=7)

    def excess(group, total: int) -> float:
        """Distance of the vote shares from those of experts without error."""
        rng = np.random.default_rng(4)
        sharp = vote_odds(features, MANY)
        shares = np.array([draw_votes(row, group, total, rng) / total for row in features])
        return float(np.abs(shares - sharp).sum(axis=1).mean())

    assert excess(FEW, 3) > excess(SOME, 5) > excess(MANY, 15)


def test_no_other_prediction_beats_the_odds() -> None:
    rng = np.random.default_rng(6)
    features = some_features(3_000, seed=8)
    shares = np.array([draw_votes(row, FEW, 3, rng) / 3 for row in features])
    odds = vote_odds(features, FEW)

    def loss(predicted: np.ndarray) -> float:
        predicted = predicted / predicted.sum(axis=1, keepdims=True)
        return float(-(shares * np.log(predicted)).sum(axis=1).mean())

    best = loss(odds)
    for other in (odds**1.3, odds**0.7, odds + 0.05, vote_odds(features, MANY)):
        assert loss(other) > best


@pytest.mark.parametrize(("n_rows", "length"), [(1, 0), (2, 1), (5, 1), (6, 2), (15, 2), (16, 3)])
def test_totals_have_the_real_frequencies(n_rows: int, length: int) -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([draw_total(FEW, n_rows, rng) for _ in range(4_000)])
    counts = {total: numbers[length] for total, numbers in VOTE_TOTALS["1-3"].items()}
    for total, count in counts.items():
        share = count / sum(counts.values())
        assert (drawn == total).mean() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("n_rows", [1, 3, 40])
def test_totals_without_a_tier_come_from_all_tiers_and_lengths(n_rows: int) -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([draw_total(None, n_rows, rng) for _ in range(4_000)])
    few = sum(sum(numbers) for numbers in VOTE_TOTALS["1-3"].values())
    everyone = sum(sum(numbers) for tier in VOTE_TOTALS.values() for numbers in tier.values())
    assert (drawn <= 3).mean() == pytest.approx(few / everyone, abs=0.03)


def test_experts_have_the_same_error_on_all_recordings_of_a_patient() -> None:
    """The lasting error makes two recordings of a patient agree, also if both are wrong."""
    features = np.array([0.0, 0.5, np.log(3.6), 0.5, 0.45])

    def agreement(same: bool) -> float:
        rng = np.random.default_rng(3)
        equal = 0
        for _ in range(2_000):
            lasting = rng.standard_normal((2, N_FEATURES))
            first, second = (
                draw_votes_of(features, FEW, 1, lasting[0 if same else position], rng).argmax()
                for position in (0, 1)
            )
            equal += first == second
        return equal / 2_000

    assert agreement(same=True) > agreement(same=False) + 0.1


def test_independent_raters_are_of_one_kind_and_share_no_error() -> None:
    groups = expert_tiers(frozenset({"independent_raters"}))
    assert [group.name for group in groups] == [group.name for group in EXPERT_TIERS]
    features = some_features(2_000, seed=5)
    odds = vote_odds(features, groups[-1])
    for group in groups:
        assert set(group.shared) == {0.0}
        assert set(group.bias) == {0.0}
        np.testing.assert_array_equal(vote_odds(features, group), odds)
        rng = np.random.default_rng(2)
        drawn = [draw_votes(row, group, 3, rng).max() == 3 for row in features]
        # Three votes agree exactly as often as three independent draws do.
        assert np.mean(drawn) == pytest.approx(np.mean(odds**3 @ np.ones(6)), abs=0.03)
    assert groups[-1].error == MANY.error
    assert expert_tiers(frozenset({"constant_gain"})) == EXPERT_TIERS


def test_totals_stay_in_their_tier() -> None:
    for name, low, high in VOTE_TIERS:
        assert all(low <= total <= (high or 28) for total in VOTE_TOTALS[name])
