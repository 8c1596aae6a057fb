"""Images that a fold trains and scores, against counting by hand."""

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.experiment import Experiment
from hms_ray.experiment.image_visits import experiment_visits, scored_images, stage_visits
from tests.fold_data import example_experiment

FOLDS = np.arange(30) % 3
VOTES = np.where(np.arange(30) < 12, 9, 2)


@pytest.fixture
def rows() -> pd.DataFrame:
    table = pd.DataFrame({"fold": FOLDS, "total_votes": VOTES})
    table[list(TARGET_COLUMNS)] = 1 / 6
    return table


def experiment(batch_size: int) -> Experiment:
    stages = (
        {"rows": "below_threshold", "epochs": 2},
        {"rows": "at_least_threshold", "epochs": 3},
    )
    return example_experiment("test_vit", stages=stages, stage_threshold=5, batch_size=batch_size)


def test_visits_are_rows_of_other_folds_times_epochs(rows: pd.DataFrame) -> None:
    for fold in range(3):
        few = sum(f != fold and v == 2 for f, v in zip(FOLDS, VOTES, strict=True))
        many = sum(f != fold and v == 9 for f, v in zip(FOLDS, VOTES, strict=True))
        assert stage_visits(experiment(4), rows, fold) == [2 * few, 3 * many]
    assert experiment_visits(experiment(4), rows) == 3 * (2 * 12 + 3 * 8)


def test_each_epoch_scores_twice_unless_it_is_one_batch(rows: pd.DataFrame) -> None:
    assert scored_images(experiment(7), rows, 0) == 10 * (2 * 2 + 2 * 3)
    # Eight rows with many votes fit into one batch.
    assert scored_images(experiment(8), rows, 0) == 10 * (2 * 2 + 1 * 3)
