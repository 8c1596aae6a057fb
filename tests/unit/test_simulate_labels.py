"""Simulated label tables: close to the real one, repeatable, and as their control requires.

The real figures come from the competition's ``train.csv``. The benchmark
``tests/benchmarks/simulator_against_real.py`` compares all figures; these tests compare some
on a few hundred patients.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.schema import VOTE_COLUMNS
from hms_ray.simulate.cohort import TRUTH_COLUMNS, Cohort, simulate_labels
from hms_ray.simulate.options import Control
from hms_ray.simulate.patient_draws import Patient, draw_tiers
from hms_ray.simulate.patients import JudgedRecording
from hms_ray.simulate.profiles import BOTH, ONLY_FEW, ONLY_MANY, PROFILES
from tests.benchmarks.simulator_labels import Table, entropy, of_total, shares, unanimous

N = 300


@cache
def tables(control: Control | None = None) -> tuple[Table, pd.DataFrame]:
    controls = frozenset() if control is None else frozenset({control})
    labels, truth = simulate_labels(N, Cohort(11, "competition", controls))
    return Table.of(labels), truth


def first_rows(table: Table) -> np.ndarray:
    """Whether a label row is the first one of its vote group."""
    return ~table.rows.duplicated(["eeg_id", *VOTE_COLUMNS]).to_numpy()


@cache
def plans(control: Control | None = None, n: int = 40) -> list[JudgedRecording]:
    controls = frozenset() if control is None else frozenset({control})
    cohort = Cohort(2, "competition", controls)
    return [judged for index in range(n) for judged in cohort.patient("train", index)]


@pytest.mark.parametrize(
    ("low", "high", "mean_entropy", "of_one_opinion"),
    [(1, 3, 0.148, 0.783), (4, 28, 0.682, 0.107), (10, 28, 0.703, 0.088)],
)
def test_few_votes_agree_more_often_than_many(
    low: int, high: int, mean_entropy: float, of_one_opinion: float
) -> None:
    rows = of_total(tables()[0].rows, low, high)
    assert entropy(rows) == pytest.approx(mean_entropy, abs=0.1)
    assert unanimous(rows) == pytest.approx(of_one_opinion, abs=0.1)


@pytest.mark.parametrize(
    ("low", "high", "real"),
    [
        (1, 3, (0.226, 0.124, 0.089, 0.065, 0.122, 0.374)),
        (10, 28, (0.052, 0.189, 0.123, 0.083, 0.088, 0.465)),
    ],
)
def test_class_frequencies_match_the_real_table(low: int, high: int, real) -> None:
    found = shares(of_total(tables()[0].groups, low, high)).mean(axis=0)
    np.testing.assert_allclose(found, real, rtol=0, atol=0.12)


def test_structure_matches_the_real_table() -> None:
    table = tables()[0]
    eegs = table.rows.groupby("eeg_id").size()
    assert eegs.median() == pytest.approx(3, abs=1)
    assert (eegs == 1).mean() == pytest.approx(0.37, abs=0.08)
    assert table.rows.groupby("patient_id")["eeg_id"].nunique().median() == pytest.approx(3, abs=1)
    assert table.groups["span_s"].median() == pytest.approx(6, abs=4)
    sides = table.groups.assign(few=table.groups["total"] < 10, many=table.groups["total"] >= 10)
    by_patient = sides.groupby("patient_id")[["few", "many"]].any()
    assert by_patient.all(axis=1).mean() == pytest.approx(0.46, abs=0.1)
    assert (~by_patient["many"]).mean() == pytest.approx(0.46, abs=0.1)


def agreement_of_three(control: Control | None = None) -> tuple[float, float]:
    """Share of unanimous groups of three votes, as drawn and if votes were independent."""
    table, truth = tables(control)
    odds = truth[list(TRUTH_COLUMNS)].to_numpy()
    three = first_rows(table) & (table.rows["total"] == 3).to_numpy()
    return unanimous(table.rows[three]), float((odds[three] ** 3).sum(axis=1).mean())


def test_few_voters_share_their_errors() -> None:
    """Three votes of few-vote experts agree far more often than independent votes would."""
    drawn, independent = agreement_of_three()
    assert drawn > independent + 0.15


def test_patient_does_not_depend_on_number_of_patients() -> None:
    few, many = (simulate_labels(n, Cohort(3, "competition"))[0] for n in (2, 4))
    pd.testing.assert_frame_equal(few, many.iloc[: len(few)])


@pytest.mark.parametrize(
    ("kind", "some", "none"), [(ONLY_FEW, {0, 1}, {2}), (ONLY_MANY, {2}, {0, 1}), (BOTH, {2}, {})]
)
def test_kind_of_patient_decides_its_tiers(kind: int, some: set, none: set) -> None:
    rng = np.random.default_rng(0)
    for many in (0.01, 0.5, 0.99):
        patient = Patient((1, 1, 1), kind, many, None)
        for _ in range(50):
            tiers = set(draw_tiers(patient, (None, "LPD", "Seizure"), rng))
            assert tiers & some
            assert not tiers & set(none)
            if kind == BOTH:
                assert tiers & {0, 1}


def test_small_profile_is_short() -> None:
    profile = PROFILES["small"]
    cohort = Cohort(0)
    for index in range(60):
        judged = cohort.patient("train", index)
        assert len(judged) <= 4
        for one in judged:
            assert one.plan.groups[-1].eeg < profile.max_eegs
            assert len(one.plan.envelope) / 5 <= 602 + 800


def test_permuted_votes_do_not_depend_on_who_voted() -> None:
    def many_by_tier(control: Control | None) -> list[float]:
        """Share of vote groups with ten votes or more, by the tier that voted."""
        table, truth = tables(control)
        first = first_rows(table)
        many = table.rows["total"][first] >= 10
        return many.groupby(truth["tier"][first]).mean()[["1-3", "4-9", ">=10"]].tolist()

    assert many_by_tier(None) == [0, 0, 1]
    few, some, most = many_by_tier("permuted_votes")
    assert few == pytest.approx(most, abs=0.04)
    assert some == pytest.approx(most, abs=0.1)


def test_independent_raters_agree_by_chance_only() -> None:
    drawn, independent = agreement_of_three("independent_raters")
    assert drawn == pytest.approx(independent, abs=0.04)


def test_independent_raters_see_the_same_recordings() -> None:
    for plain, independent in zip(plans(), plans("independent_raters"), strict=True):
        np.testing.assert_array_equal(plain.plan.features, independent.plan.features)
        np.testing.assert_array_equal(plain.tiers, independent.tiers)


def test_constant_gain_changes_only_the_gain() -> None:
    gains = {one.plan.ongoing.gain for one in plans("constant_gain")}
    assert gains == {1.0}
    assert len({one.plan.ongoing.gain for one in plans()}) > 20
    for plain, constant in zip(plans(), plans("constant_gain"), strict=True):
        assert replace(plain.plan.ongoing, gain=1.0) == constant.plan.ongoing
        # Of the features only visibility depends on the gain.
        seen = plain.plan.features[:, 0] > -2.2
        both = seen & (constant.plan.features[:, 0] > -2.2)
        np.testing.assert_array_equal(
            plain.plan.features[both, 1:], constant.plan.features[both, 1:]
        )


def test_stationary_context_is_constant() -> None:
    for one in plans("stationary_context"):
        assert len(set(one.states)) == 1
        assert (one.plan.envelope == 1).all()
        assert len(one.plan.episodes) <= 1
        for episode in one.plan.episodes:
            assert episode.start == 0
            assert len(episode.strength) == len(one.plan.envelope)
            for curve in (episode.strength, episode.frequency_hz, episode.asymmetry):
                assert np.ptp(curve) == 0
        np.testing.assert_allclose(np.ptp(one.plan.features, axis=0), 0, atol=1e-9)
    plain = [one for one in plans() if len(one.plan.groups) > 1]
    assert np.mean([np.ptp(one.plan.features[:, 0]) > 0.1 for one in plain]) > 0.5
