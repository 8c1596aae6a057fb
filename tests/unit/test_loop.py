"""Training of one fold: selection, reports, reproducibility and errors."""

import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hms_ray.config.augmentation import AugmentConfig, CutMixConfig
from hms_ray.config.experiment import Experiment, ModelConfig
from hms_ray.config.training import StageConfig
from hms_ray.config.views import PICTURES
from hms_ray.errors import ModelError, TrainingError
from hms_ray.evaluate.metric import kl_divergence
from hms_ray.train import clock, fold_training
from hms_ray.train import windows as windows_module
from hms_ray.train.images import Images
from hms_ray.train.loop import train_fold
from hms_ray.train.process import Process
from hms_ray.train.result import FoldResult
from hms_ray.train.score import has_bfloat16, resolve_precision
from hms_ray.train.windows import open_sources
from tests.fold_data import (
    all_sources,
    example_experiment,
    example_fold,
    example_pack,
    predicted_again,
)

DATA = example_fold()
KAGGLE = DATA.sources["kaggle"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_fold_predicts_every_validation_row() -> None:
    reports: list[dict[str, Any]] = []
    result = train_fold(example_experiment(epochs=2), DATA, 0, Process(report=reports.append))
    assert np.array_equal(result.valid, DATA.valid)
    assert result.probabilities.shape == (13, 6)
    assert result.probabilities.dtype == np.float64
    np.testing.assert_allclose(result.probabilities.sum(1), 1.0, atol=1e-12)
    assert [record["epoch"] for record in result.history] == [0.5, 1.0, 1.5, 2.0]
    assert [record["step"] for record in result.history] == [2, 4, 6, 8]
    assert [record.pop("progress") for record in reports] == [0.25, 0.5, 0.75, 1.0]
    assert reports == result.history
    assert set(reports[0]) == {
        *("stage", "stage_index", "epoch", "step", "kl_all", "kl_4", "kl_10"),
        *("train_loss", "learning_rate", "seconds"),
        *("epochs", "loss", "gradient_norm", "images_per_s", "gpu_memory_gib"),
    }
    assert result.history[-1]["kl_all"] == pytest.approx(
        kl_divergence(DATA.targets[DATA.valid], result.probabilities), rel=1e-12
    )
    assert result.history[-1]["learning_rate"] == pytest.approx(1e-4)
    assert not result.optimistic
    assert result.precision == "float32"
    assert result.normalisation == {"kaggle": {"mode": "per_image"}}
    assert set(result.timing) == {
        *("total_s", "prepare_s", "train_s", "evaluate_s", "keep_s", "images_per_s")
    }
    n_images = result.timing["images_per_s"] * result.timing["train_s"]
    assert n_images == pytest.approx(2 * len(DATA.train))


def test_stored_weights_reproduce_the_predictions() -> None:
    experiment = example_experiment(checkpoint="best", epochs=3, learning_rate=0.01)
    result = train_fold(experiment, DATA, 0, Process())
    again = predicted_again(experiment, result, DATA)
    np.testing.assert_allclose(again, result.probabilities, rtol=1e-4, atol=1e-6)


def test_training_beats_a_constant_prediction() -> None:
    data = example_fold(n_train=180, n_valid=60)
    experiment = example_experiment(epochs=8, batch_size=20, learning_rate=3e-3)
    result = train_fold(experiment, data, 0, Process())
    mean = np.repeat(data.targets[data.train].mean(0)[None], 60, axis=0)
    constant = kl_divergence(data.targets[data.valid], mean)
    assert result.history[-1]["kl_all"] < 0.85 * constant
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]


@pytest.mark.parametrize(
    "view", [f"{source} {picture}" for source in PICTURES for picture in PICTURES[source]]
)
def test_fold_trains_with_every_view(view: str) -> None:
    inputs = {"views": (view,), "size": (32, 32), "raw": {"rows": 2}}
    result = train_fold(example_experiment(inputs=inputs), all_sources(), 0, Process())
    np.testing.assert_allclose(result.probabilities.sum(1), 1.0, atol=1e-12)
    assert result.history[-1]["train_loss"] > 0


def test_epoch_of_one_batch_is_evaluated_once() -> None:
    result = train_fold(example_experiment(epochs=2, batch_size=64), DATA, 0, Process())
    assert [record["epoch"] for record in result.history] == [1.0, 2.0]


def test_stages_train_on_their_own_rows_with_a_new_schedule() -> None:
    stages = (
        StageConfig(
            name="noisy",
            rows="below_threshold",
            epochs=1,
            learning_rate=2e-3,
            loss="kl_log_votes",
        ),
        StageConfig(name="good", rows="at_least_threshold", epochs=1),
    )
    experiment = example_experiment(stages=stages, stage_threshold=8, warmup=0.0)
    result = train_fold(experiment, DATA, 0, Process())
    votes = DATA.total_votes[DATA.train]
    steps = [-(-int((votes < 8).sum()) // 12), -(-int((votes >= 8).sum()) // 12)]
    ends = [record for record in result.history if record["epoch"] == 1.0]
    assert [record["stage"] for record in ends] == ["noisy", "good"]
    assert [record["stage_index"] for record in ends] == [0, 1]
    assert [record["step"] for record in ends] == [steps[0], sum(steps)]
    assert [record["learning_rate"] for record in ends] == pytest.approx([2e-4, 1e-4])
    assert [record["epochs"] for record in ends] == [1.0, 2.0]
    assert [record["loss"] for record in ends] == ["kl_log_votes", "kl"]


def test_same_seed_repeats_bit_for_bit_and_restores_global_generators() -> None:
    experiment = example_experiment(
        augment=AugmentConfig(cutmix=CutMixConfig(probability=1.0)),
        inputs={"normalisation": "global"},
    )
    experiment = experiment.model_copy(
        update={"model": ModelConfig(name="test_efficientnet", pretrained=False)}
    )
    torch.manual_seed(3)
    first = train_fold(experiment, DATA, 1, Process())
    after = torch.rand(1)
    torch.manual_seed(4)
    torch.rand(7)
    second = train_fold(experiment, DATA, 1, Process())
    assert np.array_equal(first.probabilities, second.probabilities)
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))
    other_fold = train_fold(experiment, DATA, 2, Process())
    assert not np.array_equal(first.probabilities, other_fold.probabilities)
    seed = experiment.training.model_copy(update={"seed": 1})
    other_seed = train_fold(experiment.model_copy(update={"training": seed}), DATA, 1, Process())
    assert not np.array_equal(first.probabilities, other_seed.probabilities)


def test_global_constants_use_all_training_rows_in_every_stage() -> None:
    windows = np.stack([KAGGLE.pack.values[s : s + 64] for s in KAGGLE.starts[DATA.train]])
    windows = windows.astype(np.float64)
    stages = (StageConfig(rows="at_least_threshold", epochs=1),)
    experiment = example_experiment(inputs={"normalisation": "global"}, stages=stages)
    fitted = train_fold(experiment, DATA, 0, Process()).normalisation["kaggle"]
    assert fitted["mode"] == "global"
    assert fitted["mean"] == pytest.approx(np.nanmean(windows), rel=1e-6)
    assert fitted["std"] == pytest.approx(np.nanstd(windows), rel=1e-6)


class Linear(nn.Module):
    """Fixed weights, so that golden losses do not depend on how layers are drawn."""

    def __init__(self) -> None:
        super().__init__()
        weights = np.random.default_rng(11).normal(0, 0.05, size=(6, 64 * 64))
        self.layer = nn.Linear(64 * 64, 6)
        with torch.no_grad():
            self.layer.weight.copy_(torch.from_numpy(weights))
            self.layer.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1))


GOLDEN: dict[str, list[float]] = {
    "kl": [
        *(2.77582, 2.82184, 2.51372, 2.41741, 1.68458),
        *(1.45575, 1.0776, 0.946601, 0.698348, 0.876627),
        *(0.686392, 0.62669, 0.57547, 0.524371, 0.454368),
        *(0.514459, 0.47594, 0.410792, 0.40019, 0.440431),
    ],
    "kl_log_votes": [
        *(7.21719, 4.81233, 5.28499, 5.44203, 4.01935),
        *(3.06188, 2.35603, 2.40353, 1.60455, 2.17021),
        *(1.53331, 1.66207, 1.37756, 1.29726, 1.03516),
        *(1.2432, 1.0974, 0.948161, 0.894519, 1.0135),
    ],
    "kl_capped_votes": [
        *(25.5882, 15.1811, 17.7189, 18.6018, 13.7115),
        *(10.2148, 8.07207, 8.11794, 5.39697, 7.69456),
        *(5.36878, 5.88564, 4.87915, 4.5641, 3.6804),
        *(4.37455, 3.85277, 3.42322, 3.11132, 3.66757),
    ],
    "kl_floored_votes": [
        *(39.3165, 30.3854, 30.3478, 31.5842, 22.5724),
        *(17.5825, 13.2092, 12.6932, 8.39341, 11.5375),
        *(8.38878, 8.4689, 7.36099, 6.95683, 5.56164),
        *(6.76405, 6.03706, 5.17059, 5.02385, 5.49368),
    ],
}


GOLDEN_NORMALISED: dict[str, list[float]] = {
    "none": [
        *(11.7819, 10.6904, 8.77252, 5.17705, 4.71042),
        *(6.39354, 6.39759, 4.89728, 5.70792, 3.38592),
        *(4.70644, 3.27691, 3.10366, 3.60887, 2.78155),
        *(2.23408, 2.25543, 2.18154, 2.10614, 2.05386),
    ],
    "per_image": [
        *(3.78993, 3.5968, 2.56092, 2.021, 1.65047),
        *(2.72004, 2.11062, 1.22245, 1.17297, 1.09766),
        *(1.35995, 0.703297, 0.73752, 1.25413, 0.806191),
        *(0.943086, 0.880882, 0.70428, 0.753914, 0.702892),
    ],
    "per_panel": [
        *(3.78763, 3.61463, 2.57314, 2.02568, 1.6478),
        *(2.72303, 2.11157, 1.23226, 1.20579, 1.08725),
        *(1.3452, 0.692325, 0.721826, 1.2355, 0.804738),
        *(0.945754, 0.88858, 0.708621, 0.766734, 0.701712),
    ],
    "global": [
        *(3.76785, 3.59658, 2.55826, 2.01465, 1.64677),
        *(2.71212, 2.09415, 1.22021, 1.16443, 1.09231),
        *(1.35301, 0.699259, 0.733486, 1.24558, 0.792515),
        *(0.938577, 0.874146, 0.694304, 0.750133, 0.693389),
    ],
    "per_frequency": [
        *(3.58717, 3.39871, 2.40796, 1.9843, 1.64845),
        *(2.58031, 1.96443, 1.0841, 0.995806, 1.05658),
        *(1.40699, 0.726229, 0.705396, 1.23075, 0.732756),
        *(0.865168, 0.839542, 0.623585, 0.732222, 0.629767),
    ],
    "robust": [
        *(3.86737, 3.68064, 2.62304, 2.04497, 1.67472),
        *(2.73886, 2.13175, 1.29699, 1.3044, 1.12215),
        *(1.34011, 0.666973, 0.684063, 1.19956, 0.811084),
        *(0.945408, 0.886731, 0.75185, 0.778246, 0.734609),
    ],
}


def golden_losses(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    monkeypatch.setattr(fold_training, "build_model", lambda *arguments: Linear())
    history = train_fold(experiment, DATA, 0, Process()).history
    assert [record["step"] for record in history] == list(range(1, 21))
    return [record["train_loss"] for record in history]


@pytest.mark.parametrize("loss", ["kl", "kl_log_votes", "kl_capped_votes", "kl_floored_votes"])
def test_golden_losses_of_twenty_steps(loss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = example_experiment(epochs=10, batch_size=24, loss=loss, warmup=0.2)
    np.testing.assert_allclose(golden_losses(experiment, monkeypatch), GOLDEN[loss], rtol=1e-4)


@pytest.mark.parametrize("mode", list(GOLDEN_NORMALISED))
def test_golden_losses_of_normalisations(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = example_experiment(
        # Statistics, where panels measured alone differ from panels measured together.
        inputs={"views": ("statistics",), "normalisation": mode},
        epochs=10,
        batch_size=24,
        warmup=0.2,
    )
    np.testing.assert_allclose(
        golden_losses(experiment, monkeypatch), GOLDEN_NORMALISED[mode], rtol=1e-4
    )


def test_non_finite_loss_names_stage_epoch_and_step() -> None:
    experiment = example_experiment(learning_rate=1e30, epochs=2)
    with pytest.raises(
        TrainingError, match=r"training loss must be finite.*stage train, epoch 1"
    ) as e:
        train_fold(experiment, DATA, 0, Process())
    assert "step 2" in str(e.value)
    assert "learning_rate" in str(e.value)


def test_non_finite_predictions_stop_a_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = super().forward(x)
            return logits if self.training else logits * float("nan")

    monkeypatch.setattr(fold_training, "build_model", lambda *arguments: Broken())
    with pytest.raises(
        TrainingError,
        match=r"predictions must be finite, got 13 of 13 rows .*stage train, epoch 1, step 2",
    ):
        train_fold(example_experiment(), DATA, 0, Process())


def test_seconds_continue_from_resumed_stages_without_preparation_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ahead, measured = [0.0], time.perf_counter

    def slow_model(*arguments: Any) -> nn.Module:
        ahead[0] = 100.0
        return build_model(*arguments)

    build_model = fold_training.build_model
    monkeypatch.setattr(clock.time, "perf_counter", lambda: measured() + ahead[0])
    monkeypatch.setattr(fold_training, "build_model", slow_model)
    stages = (StageConfig(name="one", epochs=1), StageConfig(name="two", epochs=1))
    experiment = example_experiment(stages=stages)
    after: list[FoldResult] = []
    train_fold(experiment, DATA, 0, Process(), on_stage_end=after.append)
    ahead[0] = 0.0
    result = train_fold(experiment, DATA, 0, Process(), resume_from=after[0])
    resumed, *further = [record["seconds"] for record in result.history][1:]
    assert resumed == after[0].history[-1]["seconds"] > 100
    assert resumed < further[0] < further[1] < resumed + 50


def test_rate_of_a_record_is_that_since_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
    timed = clock.Clock(started=0.0)
    rates = []
    for seconds, images in ((2.0, 100), (4.0, 100)):
        now[0] += seconds
        timed.lap("train_s")
        timed.images += images
        now[0] += 10
        timed.lap("evaluate_s")
        rates.append(timed.recent_rate())
    assert rates == [50.0, 25.0]
    resumed = clock.Clock(started=now[0])
    resumed.resume(timed.state())
    now[0] += 1
    resumed.lap("train_s")
    resumed.images += 10
    assert resumed.recent_rate() == 10.0, "what an earlier process trained does not count"


def test_unknown_model_fails_before_any_row_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitted: list[Any] = []
    monkeypatch.setattr(Images, "fit", lambda *arguments: fitted.append(arguments))
    with pytest.raises(ModelError, match="no_such_model"):
        train_fold(
            example_experiment("no_such_model", {"normalisation": "global"}), DATA, 0, Process()
        )
    assert not fitted


@pytest.mark.parametrize("emulated", [True, False])
def test_auto_precision_avoids_emulated_bfloat16(
    emulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_supported(including_emulation: bool = True) -> bool:
        return including_emulation or not emulated

    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert has_bfloat16(gpu) is not emulated
    assert resolve_precision("auto", gpu) == ("float16" if emulated else "bfloat16")
    assert not has_bfloat16(torch.device("cpu"))
    assert resolve_precision("auto", torch.device("cpu")) == "float32"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not has_bfloat16(gpu)


@pytest.mark.parametrize(("allocated", "kind"), [(0, "resident"), (900_000, "streamed")])
def test_memory_cached_by_torch_counts_as_free(
    allocated: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack: Any = example_pack(1000)  # 128 kB, so 320 kB must be free
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100_000, 10**6))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 900_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)
    monkeypatch.setattr(windows_module, "Resident", lambda pack, device: "resident")
    monkeypatch.setattr(windows_module, "Streamed", lambda pack, device: "streamed")
    gpu = torch.device("cuda", 0)
    assert open_sources({"": pack}, gpu)[""] == kind
    half = replace(pack, values=pack.values[:500])
    assert open_sources({"a": half, "b": half}, gpu) == {"a": kind, "b": kind}
    # Of 1 MB free, 400 kB hold six halves of 64 kB, but not seven.
    assert set(open_sources(dict.fromkeys("abcdef", half), gpu).values()) == {kind}
    assert set(open_sources(dict.fromkeys("abcdefg", half), gpu).values()) == {"streamed"}


def test_precisions() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) == "float32"
    assert resolve_precision("bfloat16", cpu) == "bfloat16"
    float64 = train_fold(example_experiment(precision="float64"), DATA, 0, Process())
    assert {w.dtype for w in float64.weights.values()} == {torch.float64, torch.int64}
    bfloat16 = train_fold(example_experiment(precision="bfloat16"), DATA, 0, Process())
    assert bfloat16.precision == "bfloat16"
    assert bfloat16.weights["conv_stem.weight"].dtype == torch.float32
    assert not np.array_equal(bfloat16.probabilities, float64.probabilities)
    np.testing.assert_allclose(bfloat16.probabilities.sum(1), 1.0, atol=1e-12)
