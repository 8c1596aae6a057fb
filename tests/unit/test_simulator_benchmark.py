"""Figures of the simulator's benchmark that are easily wrong."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.schema import VOTE_COLUMNS
from tests.benchmarks.simulator_labels import unanimous_of_three
from tests.benchmarks.simulator_signals import Line, rate_line


def test_three_of_many_votes_agree_as_often_as_all_triples() -> None:
    votes = [(7, 0, 2, 0, 0, 3), (10, 0, 0, 0, 0, 0)]
    expected = []
    for counts in votes:
        ballots = np.repeat(np.arange(6), counts)
        expected.append(np.mean([len(set(three)) == 1 for three in combinations(ballots, 3)]))
    groups = pd.DataFrame(votes, columns=list(VOTE_COLUMNS))
    assert unanimous_of_three(groups) == pytest.approx(np.mean(expected), rel=1e-9)


def test_the_rate_has_a_limit_with_two_processes() -> None:
    assert rate_line(40, 60.0, processes=2).simulated == 40
    assert rate_line(40, 60.0, processes=2).verdict == "ok"
    assert rate_line(40, 121.0, processes=2).verdict == "OFF"
    assert rate_line(40, 121.0, processes=1).verdict == "check"
    assert rate_line(40, 60.0, processes=2).target == "20.."


def test_bounds_hold_on_both_sides() -> None:
    assert Line("figure", 1.0, 3.0, 0.5, 2.0).verdict == "OFF"
    assert Line("figure", 1.0, 0.4, 0.5, 2.0).verdict == "OFF"
    assert Line("figure", 1.0, 1.0, 0.5, 2.0).verdict == "ok"
    assert Line("figure", 1.0, 1.0).verdict == "check"
