"""The moving average of weights: its numbers, its stages and what is scored."""

import numpy as np
import pytest
import torch
from torch import nn

from hms_ray.config.experiment import Experiment
from hms_ray.config.training import StageConfig
from hms_ray.train.average import AveragedModel
from hms_ray.train.loop import train_fold
from hms_ray.train.process import Process
from hms_ray.train.result import FoldResult
from tests.fold_data import example_experiment, example_fold, predicted_again

DATA = example_fold()
STAGES = (StageConfig(name="one", epochs=2), StageConfig(name="two", epochs=1))


def averaged(ema: float | None, **training: object) -> Experiment:
    return example_experiment(stages=STAGES, learning_rate=0.01, ema=ema, **training)


def test_averages_equal_the_sum_over_steps() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    average = AveragedModel(model, 0.6)
    expected = model[0].weight.detach().numpy().copy()
    rng = np.random.default_rng(0)
    # (1 + n) / (10 + n) reaches 0.6 at n = 12.5.
    for n in range(1, 20):
        weights = rng.normal(size=expected.shape)
        with torch.no_grad():
            model[0].weight.copy_(torch.from_numpy(weights))
        model[1].running_mean.fill_(n)
        average.update()
        decay = min(0.6, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * weights
    scored = average.for_scoring(Process())
    np.testing.assert_allclose(scored[0].weight.numpy(), expected, rtol=1e-12)  # type: ignore[index,operator,union-attr]
    assert scored[1].running_mean.tolist() == [19, 19], "copied, not averaged"  # type: ignore[index,operator,union-attr]
    np.testing.assert_array_equal(model[0].weight.detach().numpy(), weights)
    other = AveragedModel(model, 0.6)
    other.load(average.state())
    for one in (average, other):
        one.update()
    first, second = (one.for_scoring(Process()).state_dict() for one in (average, other))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_averages_are_scored_and_kept_and_training_is_as_without() -> None:
    plain, result = (
        train_fold(example_experiment(epochs=2, ema=ema), DATA, 0, Process()) for ema in (None, 0.9)
    )
    assert [line["train_loss"] for line in result.history] == [
        line["train_loss"] for line in plain.history
    ]
    assert [line["kl_all"] for line in result.history] != [line["kl_all"] for line in plain.history]
    assert torch.equal(result.weights["bn1.running_mean"], plain.weights["bn1.running_mean"])
    assert not torch.equal(result.weights["conv_stem.weight"], plain.weights["conv_stem.weight"])
    experiment = example_experiment()
    again = predicted_again(experiment, result, DATA)
    np.testing.assert_allclose(again, result.probabilities, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("handed", ["last", "best"])
def test_stages_start_from_the_averages_that_were_handed_on(handed: str) -> None:
    """A fold that starts after a stored first stage ends with the same bits."""
    ends: list[FoldResult] = []
    experiment = averaged(0.9, next_stage_from=handed)
    whole = train_fold(experiment, DATA, 0, Process(), on_stage_end=ends.append)
    resumed = train_fold(experiment, DATA, 0, Process(), resume_from=ends[0])
    assert np.array_equal(whole.probabilities, resumed.probabilities)
    assert all(torch.equal(value, resumed.weights[name]) for name, value in whole.weights.items())
    others: list[FoldResult] = []
    train_fold(
        averaged(None, next_stage_from=handed), DATA, 0, Process(), on_stage_end=others.append
    )
    assert not torch.equal(
        others[0].weights["conv_stem.weight"], ends[0].weights["conv_stem.weight"]
    )
