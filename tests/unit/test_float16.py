"""Training in float16 with a scaled loss, here on the CPU: skipped steps, errors, stages."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hms_ray.config.experiment import Experiment
from hms_ray.config.training import StageConfig, TrainingConfig
from hms_ray.errors import ConfigError, TrainingError
from hms_ray.experiment.placement import Placement
from hms_ray.train.loop import train_fold
from hms_ray.train.process import Process
from hms_ray.train.result import FoldResult
from hms_ray.train.score import check_finite
from hms_ray.train.stages import make_optimiser, make_schedule
from hms_ray.train.step import Step
from tests.fold_data import example_experiment, example_fold
from tests.refused import refusal

DATA = example_fold()
N_STEPS = 8
INITIAL = 2.0**16


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def make_step(precision: Any = "float16", n_steps: int = N_STEPS) -> Step:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6))
    training = TrainingConfig()
    (stage,) = training.resolved_stages()
    optimiser = make_optimiser(model, training, stage)
    schedule = make_schedule(optimiser, training, stage, n_steps)
    return Step(model, Process(), precision, optimiser, schedule)


def take(step: Step, size: float, **options: bool) -> torch.Tensor:
    """A step on four images of numbers of this size."""
    image = size * torch.linspace(-1, 1, 64).reshape(4, 1, 4, 4)
    batch: Any = SimpleNamespace(targets=np.eye(6)[[0, 1, 1, 5]], weights=np.ones(4), n_global=4)
    return step(batch, image, **options)


def weights_of(step: Step) -> torch.Tensor:
    return step.network[1].weight.detach().clone()  # type: ignore[index,operator,union-attr]


def test_step_with_overflowing_gradients_is_skipped_and_the_schedule_continues() -> None:
    step, plain = make_step(), make_step("float32")
    start = weights_of(step)
    # Gradients near 20 overflow at scales of 65,536 and 32,768 (to 65,504 and no further).
    losses = [take(step, 40.0) for _ in range(N_STEPS)]
    rates = []
    for _ in range(N_STEPS):
        take(plain, 40.0)
        rates.append(plain.learning_rate)
    assert all(loss.isfinite() for loss in losses)
    scale = step.scaler.get_scale()
    assert 1 < scale < INITIAL
    n_skipped = int(np.log2(INITIAL / scale))
    assert 0 < n_skipped < N_STEPS
    assert losses[0] == losses[n_skipped] != losses[n_skipped + 1], "the same weights"
    assert not torch.equal(weights_of(step), start)
    assert step.learning_rate == rates[-1] == pytest.approx(1e-4)
    assert step.mean_loss(losses, "here", 0) == pytest.approx(np.mean([float(x) for x in losses]))


def test_small_gradients_make_the_step_of_float32() -> None:
    step, plain = make_step(), make_step("float32")
    for one in (step, plain):
        take(one, 1.0)
    torch.testing.assert_close(weights_of(step), weights_of(plain), rtol=0, atol=1e-5)
    assert not plain.scaler.is_enabled()


def test_norm_of_a_gradient_is_that_of_the_loss_without_its_scale() -> None:
    step, plain = make_step(), make_step("float32")
    assert plain.gradient_norm is None, "before a step is measured"
    for one in (step, plain):
        take(one, 1.0, measured=True)
    gradients = [parameter.grad.double().numpy() for parameter in plain.network.parameters()]  # type: ignore[union-attr]
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    assert plain.gradient_norm == pytest.approx(norm, rel=1e-6)
    assert step.gradient_norm == pytest.approx(norm, rel=1e-2)
    take(plain, 2.0)
    assert plain.gradient_norm == pytest.approx(norm, rel=1e-6), "of the measured step alone"
    take(step, 40.0, measured=True)
    assert step.gradient_norm is None, "the scaled gradients overflowed"


def test_only_persistent_losses_that_are_not_finite_are_an_error() -> None:
    losses = [torch.tensor(value) for value in (2.0, float("nan"), 4.0)]
    step = make_step()
    take(step, 1.0)
    assert step.mean_loss(losses, "here", 0) == 3.0
    rule, where = "the training loss must be finite", "stage a, epoch 2, step 12"
    with refusal(TrainingError, rule, got="nan", where=where, fix="Try training.precision"):
        step.mean_loss(losses[1:2], "stage a, epoch 2", 11)
    with refusal(
        TrainingError, rule, got="nan", where=where, fix="Try a smaller training.learning_rate"
    ):
        make_step("float32").mean_loss(losses, "stage a, epoch 2", 10)


def test_gradients_that_are_never_finite_are_an_error() -> None:
    step = make_step(n_steps=17)
    losses = [take(step, float("inf")) for _ in range(17)]
    assert step.scaler.get_scale() == 0.5
    with refusal(
        TrainingError,
        "gradients must be finite in float16 at a loss scale of 1",
        got="a scale of 0.5",
        where="stage a, epoch 1, step 17",
        fix="Try training.precision: float32",
    ):
        step.mean_loss([torch.tensor(1.0) for _ in losses], "stage a, epoch 1", 0)


def test_fold_has_the_steps_and_rates_of_float32() -> None:
    half = train_fold(example_experiment(precision="float16", epochs=2), DATA, 0, Process())
    plain = train_fold(example_experiment(precision="float32", epochs=2), DATA, 0, Process())
    assert half.precision == "float16"
    assert half.weights["conv_stem.weight"].dtype == torch.float32
    for name in ("epoch", "step", "learning_rate"):
        assert [r[name] for r in half.history] == [r[name] for r in plain.history]
    np.testing.assert_allclose(half.probabilities.sum(1), 1.0, atol=1e-12)
    assert not np.array_equal(half.probabilities, plain.probabilities)


def test_predictions_that_overflow_name_the_precision() -> None:
    table = np.full((2, 6), np.nan)
    with refusal(TrainingError, "predictions must be finite", fix="Try training.precision: float"):
        check_finite(table, "here", "float16")


def test_resumed_stage_starts_with_a_new_scale() -> None:
    stages = (StageConfig(name="one", epochs=1), StageConfig(name="two", epochs=1))
    experiment = example_experiment(stages=stages, precision="float16")
    ends: list[FoldResult] = []
    whole = train_fold(experiment, DATA, 0, Process(), on_stage_end=ends.append)
    resumed = train_fold(experiment, DATA, 0, Process(), resume_from=ends[0])
    assert np.array_equal(whole.probabilities, resumed.probabilities)
    assert all(torch.equal(value, resumed.weights[k]) for k, value in whole.weights.items())


@pytest.mark.parametrize(
    ("placement", "precision"),
    [
        (Placement(), "float32"),
        (Placement(device_class="cuda", bfloat16=True), "bfloat16"),
        (Placement(device_class="cuda"), "float16"),
    ],
)
def test_auto_precision_of_a_placement(placement: Placement, precision: str) -> None:
    assert placement.precision(Experiment()) == precision


def test_float16_on_a_cpu_is_refused() -> None:
    experiment = example_experiment(precision="float16")
    assert Placement(device_class="cuda", bfloat16=True).precision(experiment) == "float16"
    with refusal(
        ConfigError,
        "training.precision: float16 needs a GPU",
        got="training on a CPU",
        fix="Use training.precision: auto",
    ):
        Placement().precision(experiment)
