"""Validation rows change neither weights nor normalisation constants."""

from dataclasses import replace
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest
import torch

from hms_ray.config.experiment import Experiment
from hms_ray.config.inputs import Normalisation
from hms_ray.config.training import StageConfig
from hms_ray.train.batches import FoldData
from hms_ray.train.loop import train_fold
from hms_ray.train.process import Process
from hms_ray.train.result import FoldResult
from hms_ray.transforms.fit_statistics import FITS
from tests.augmentations import TOGETHER
from tests.fold_data import example_experiment, example_fold, two_sources

DATA = two_sources(example_fold())
STAGES = {
    "one stage": (StageConfig(epochs=1),),
    "two stages": (
        StageConfig(rows="below_threshold", epochs=1),
        StageConfig(rows="at_least_threshold", epochs=1),
    ),
}
every_mode = pytest.mark.parametrize("mode", get_args(Normalisation))
every_fit = pytest.mark.parametrize("mode", list(FITS))
every_schedule = pytest.mark.parametrize("schedule", list(STAGES))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def experiment(mode: Normalisation, schedule: str) -> Experiment:
    """Two sources, both with this normalisation, on a tiny model."""
    inputs = {
        "views": ("panels", "eeg percentiles"),
        "normalisation": mode,
        "eeg": {"normalisation": mode, "downsample": (2, 2)},
    }
    return example_experiment(
        inputs=inputs, stages=STAGES[schedule], stage_threshold=8, loss="kl_log_votes"
    )


@cache
def trained(mode: Normalisation, schedule: str) -> FoldResult:
    return train_fold(experiment(mode, schedule), DATA, 0, Process())


def with_other_values(data: FoldData, rows: Any, scale: float = 1.5) -> FoldData:
    """The fold with other power in the windows of some rows, in every source."""
    sources = {}
    for name, source in data.sources.items():
        values = source.pack.values.copy()
        for start in source.starts[rows]:
            window = values[start : start + source.pack.window]
            window[...] = scale * window + 3.0
            window[:2, :4] = np.nan
        pack: Any = replace(source.pack, values=values)  # type: ignore[type-var]
        sources[name] = replace(source, pack=pack)
    return replace(data, sources=sources)


def with_other_labels(data: FoldData, rows: Any) -> FoldData:
    """The fold with other votes and targets of some rows."""
    targets, votes = data.targets.copy(), data.total_votes.copy()
    targets[rows] = np.eye(6)[np.arange(len(rows)) % 6]
    votes[rows] = np.where(votes[rows] < 8, 19, 1)
    return replace(data, targets=targets, total_votes=votes)


def same_weights(first: FoldResult, second: FoldResult) -> bool:
    return all(torch.equal(second.weights[name], value) for name, value in first.weights.items())


def test_windows_of_the_two_sets_share_no_position() -> None:
    for source in DATA.sources.values():
        starts = np.sort(source.starts)
        assert (np.diff(starts) >= source.pack.window).all(), "changes must stay in their rows"


@every_mode
@every_schedule
def test_validation_rows_do_not_change_training(mode: Normalisation, schedule: str) -> None:
    before = trained(mode, schedule)
    changed = with_other_labels(with_other_values(DATA, DATA.valid), DATA.valid)
    after = train_fold(experiment(mode, schedule), changed, 0, Process())
    assert same_weights(before, after)
    assert after.normalisation == before.normalisation
    losses = [[record["train_loss"] for record in r.history] for r in (before, after)]
    assert losses[0] == losses[1]
    assert not np.array_equal(after.probabilities, before.probabilities), "they are predicted"
    assert after.history[-1]["kl_all"] != before.history[-1]["kl_all"], "and scored"


def test_augmentation_draws_nothing_from_validation_rows() -> None:
    augment = TOGETHER.model_copy(update={"window_shift_s": 20.0})
    staged = experiment("global", "two stages")
    training = staged.training.model_copy(update={"augment": augment})
    augmented = staged.model_copy(update={"training": training})
    changed = with_other_labels(with_other_values(DATA, DATA.valid), DATA.valid)
    before, after = (train_fold(augmented, data, 0, Process()) for data in (DATA, changed))
    assert same_weights(before, after)
    assert not same_weights(before, trained("global", "two stages"))


@every_fit
@every_schedule
def test_values_of_one_training_row_change_the_constants(
    mode: Normalisation, schedule: str
) -> None:
    before = trained(mode, schedule)
    changed = with_other_values(DATA, DATA.train[5:6])
    after = train_fold(experiment(mode, schedule), changed, 0, Process())
    for source in DATA.sources:
        for name in ("mean", "std"):
            assert after.normalisation[source][name] != before.normalisation[source][name]
    assert not same_weights(before, after)


@every_mode
def test_labels_of_one_training_row_change_the_weights_but_no_constant(
    mode: Normalisation,
) -> None:
    before = trained(mode, "one stage")
    changed = with_other_labels(DATA, DATA.train[5:6])
    after = train_fold(experiment(mode, "one stage"), changed, 0, Process())
    assert not same_weights(before, after)
    assert after.normalisation == before.normalisation


@every_fit
def test_constants_are_fitted_on_all_training_rows_in_every_stage(mode: Normalisation) -> None:
    one, two = (trained(mode, schedule) for schedule in STAGES)
    assert one.normalisation == two.normalisation
    few = replace(DATA, train=DATA.train[:-5])
    assert train_fold(experiment(mode, "one stage"), few, 0, Process()).normalisation != (
        one.normalisation
    )
