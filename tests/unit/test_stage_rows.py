"""Rows that a stage trains on, and rows that choose its best evaluation."""

from typing import Any

import numpy as np
import pytest

from hms_ray.config.training import ResolvedStage, StageConfig, TrainingConfig
from hms_ray.errors import ConfigError
from hms_ray.train.stage_rows import check_stages, criterion_rows, training_rows
from tests.refused import refusal

VOTES = np.array([1, 5, 4, 12, 5, 3])
TARGETS = np.eye(6)[[0, 0, 0, 1, 2, 3]]
TARGETS[1] = [0.6, 0.4, 0, 0, 0, 0]
"""All rows but the second are unanimous."""
NOISY, GOOD = "below_threshold", "at_least_threshold"


def stage(rows: Any = "all", unanimous_from: int | None = None, **training: Any) -> ResolvedStage:
    stages = (StageConfig(name="first", rows=rows),)
    config = TrainingConfig(stages=stages, unanimous_from=unanimous_from, **training)
    return config.resolved_stages()[0]


def rows_of(stage: ResolvedStage, votes: Any = VOTES, targets: Any = TARGETS) -> list[int]:
    return training_rows(stage, votes, targets, fold=0).tolist()


def test_rows_by_total_votes() -> None:
    assert rows_of(stage()) == [0, 1, 2, 3, 4, 5]
    assert rows_of(stage(NOISY)) == [0, 2, 5]
    assert rows_of(stage(GOOD)) == [1, 3, 4]


@pytest.mark.parametrize(("votes", "good"), [(4, [1, 2, 3, 4]), (1, [0, 1, 2, 3, 4, 5])])
def test_unanimous_rows_can_be_good_with_fewer_votes(votes: int, good: list[int]) -> None:
    assert rows_of(stage(GOOD, votes)) == good
    divided = VOTES.copy()
    divided[2] = 4
    shares = TARGETS.copy()
    shares[2] = [0.75, 0.25, 0, 0, 0, 0]
    assert 2 not in rows_of(stage(GOOD, votes), divided, shares)
    assert 2 in rows_of(stage(NOISY, votes), divided, shares)


@pytest.mark.parametrize(
    ("rows", "training", "rule"),
    [
        (GOOD, {"stage_threshold": 13}, "(stage: at_least_threshold 13)"),
        (NOISY, {"stage_threshold": 2}, "(stage: below_threshold 2)"),
        (NOISY, {"unanimous_from": 1}, "(stage: below_threshold 5, unanimous ones from 1)"),
    ],
)
def test_stage_without_training_rows_is_refused(
    rows: str, training: dict[str, int], rule: str
) -> None:
    knobs = "training.stage_threshold"
    if "unanimous_from" in training:
        knobs += ", training.unanimous_from"
    with refusal(
        ConfigError,
        f"a stage needs training rows {rule}",
        got="none among 6 rows of 2-12 votes",
        where="fold 3, stage first",
        fix=f"Change {knobs} or the stage's rows",
    ):
        training_rows(stage(rows, **training), VOTES.clip(2), np.eye(6)[[0, 0, 0, 1, 2, 3]], 3)


@pytest.mark.parametrize(
    ("criterion", "chosen"),
    [
        ("stage_rows", [0, 2, 5]),
        ("kl_all", [0, 1, 2, 3, 4, 5]),
        ("kl_4", [1, 2, 3, 4]),
        ("kl_10", [3]),
    ],
)
def test_rows_that_choose_the_best_evaluation(criterion: Any, chosen: list[int]) -> None:
    best = stage(NOISY, checkpoint="best", checkpoint_criterion=criterion)
    assert criterion_rows(best, VOTES, TARGETS, 0).tolist() == chosen
    last = stage(NOISY, checkpoint_criterion=criterion)
    assert criterion_rows(last, VOTES, TARGETS, 0).tolist() == []


FOLDS = np.array([0, 0, 1, 1, 2, 2])
"""Fold 2 has 3 and 5 votes, fold 0 has 1 and 5."""


@pytest.mark.parametrize(
    ("training", "rule", "got", "where"),
    [
        (
            {"checkpoint": "best", "checkpoint_criterion": "kl_10"},
            "KL >=10 needs validation rows to choose the best evaluation of a stage",
            "none among 2 rows of 1-5 votes",
            "fold 0, stage second",
        ),
        (
            {"next_stage_from": "best", "stage_threshold": 4},
            "needs validation rows of its own to choose its best evaluation (stage: below_thresh",
            "none among 2 rows of 4-12 votes",
            "fold 1, stage first",
        ),
        (
            {"stage_threshold": 6},
            "a stage needs training rows (stage: at_least_threshold 6)",
            "none among 4 rows of 1-5 votes",
            "fold 1, stage second",
        ),
    ],
)
def test_stages_are_checked_in_every_fold(training: Any, rule: str, got: str, where: str) -> None:
    stages = (StageConfig(name="first", rows=NOISY), StageConfig(name="second", rows=GOOD))
    config = TrainingConfig(stages=stages, **training)
    with refusal(ConfigError, rule, got=got, where=where, fix="Change training.stage_threshold"):
        check_stages(config.resolved_stages(), VOTES, TARGETS, FOLDS)
    ends_with_last = TrainingConfig(stages=stages)
    check_stages(ends_with_last.resolved_stages(), VOTES, TARGETS, FOLDS)
