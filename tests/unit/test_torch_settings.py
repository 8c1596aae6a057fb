"""Deterministic folds: settings of torch during a fold, and operations without such a form."""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hms_ray.config.experiment import ModelConfig
from hms_ray.config.loading import load_space
from hms_ray.config.shipped import shipped_files
from hms_ray.config.values import replace_values
from hms_ray.config.views import PICTURES
from hms_ray.errors import TrainingError
from hms_ray.train import fold_training
from hms_ray.train.loop import train_fold
from hms_ray.train.model import build_model
from hms_ray.train.process import Process
from hms_ray.train.torch_settings import CUBLAS, torch_settings, torch_threads
from tests.augmentations import TOGETHER
from tests.fold_data import all_sources, example_experiment, example_fold
from tests.refused import refusal

DATA = example_fold()
BACKENDS: Any = torch.backends

NO_CUDA_FORM = frozenset(
    {
        *("avg_pool3d_backward", "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward"),
        *("adaptive_max_pool2d_backward", "adaptive_max_pool3d_backward"),
        *("fractional_max_pool2d_backward", "fractional_max_pool3d_backward"),
        *("max_unpool2d", "max_unpool3d"),
        *("upsample_linear1d_backward", "upsample_bilinear2d_backward"),
        *("upsample_bicubic2d_backward", "upsample_trilinear3d_backward"),
        *("_upsample_bilinear2d_aa_backward", "_upsample_bicubic2d_aa_backward"),
        *("reflection_pad1d_backward", "reflection_pad2d_backward", "reflection_pad3d_backward"),
        *("nll_loss_forward", "nll_loss2d_forward", "_ctc_loss_backward"),
        *("_embedding_bag_backward", "_embedding_bag_dense_backward"),
        *("put", "put_", "histc", "bincount", "median", "nanmedian"),
        *("grid_sampler_2d_backward", "grid_sampler_3d_backward"),
        *("scatter_reduce", "scatter_reduce_"),
    }
)
"""Operations that torch's documentation of ``use_deterministic_algorithms`` lists as refused on
CUDA, as ATen names. Some are refused in some forms only; here each counts in every form."""


class RecordedOperations(TorchDispatchMode):
    """Names of all ATen operations of a block, of forward and backward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def settings() -> dict[str, Any]:
    """Every global setting of torch that changes numbers."""
    found: dict[str, Any] = {
        "mode": torch.get_deterministic_debug_mode(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
        "benchmark": BACKENDS.cudnn.benchmark,
        "cudnn": BACKENDS.cudnn.deterministic,
        "matmul": BACKENDS.cuda.matmul.fp32_precision,
        "conv": BACKENDS.cudnn.conv.fp32_precision,
        "cpu": BACKENDS.mkldnn.matmul.fp32_precision,
        CUBLAS: os.environ.get(CUBLAS),
    }
    return found


@pytest.fixture
def own_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Settings that a user chose, as different from a fold's as can be."""
    before = settings()
    monkeypatch.setenv(CUBLAS, ":16:8")
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.set_deterministic_debug_mode("warn")
    torch.set_float32_matmul_precision("high")
    BACKENDS.cudnn.benchmark = True
    yield settings()
    torch.set_deterministic_debug_mode(before["mode"])
    torch.set_float32_matmul_precision("highest")
    BACKENDS.cudnn.benchmark = before["benchmark"]


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_fold_has_its_own_settings_and_restores_the_users(
    deterministic: bool, own_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    build = fold_training.build_model

    def noting(*of: Any) -> nn.Module:
        seen.append(settings())
        return build(*of)

    monkeypatch.setattr(fold_training, "build_model", noting)
    experiment = example_experiment(deterministic=deterministic)
    train_fold(experiment, DATA, 0, Process())
    assert seen == [
        {
            "mode": 2 if deterministic else 0,
            "fill": False,
            "benchmark": not deterministic,
            "cudnn": deterministic,
            **dict.fromkeys(("matmul", "conv", "cpu"), "ieee"),
            CUBLAS: ":4096:8",
        }
    ]
    assert settings() == own_settings


def test_settings_are_restored_after_an_error(own_settings: dict[str, Any]) -> None:
    with pytest.raises(ZeroDivisionError), torch_settings(deterministic=True):
        raise ZeroDivisionError
    assert settings() == own_settings


def test_an_unset_variable_is_unset_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CUBLAS, raising=False)
    with torch_settings(deterministic=True):
        assert os.environ[CUBLAS] == ":4096:8"
    assert CUBLAS not in os.environ


class Putting(nn.Module):
    """A model with an operation that has no deterministic form, not even on a CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(6))

    def forward(self, images: Tensor) -> Tensor:
        places = torch.arange(len(images))
        torch.zeros(len(images)).put_(places, torch.ones(len(images)))
        return self.weight + images.mean((1, 2, 3))[:, None]


def test_an_operation_without_a_deterministic_form_names_itself_and_the_switch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fold_training, "build_model", lambda *of: Putting())
    with refusal(
        TrainingError,
        "training.deterministic",
        got="put_, which has no deterministic form",
        fix="--set training.deterministic=false",
    ):
        train_fold(example_experiment(), DATA, 0, Process())
    with pytest.raises(TrainingError) as caught:
        train_fold(example_experiment(), DATA, 0, Process())
    assert isinstance(caught.value.__cause__, RuntimeError)
    train_fold(example_experiment(deterministic=False), DATA, 0, Process())


def test_cublas_that_was_used_before_is_named() -> None:
    text = "this operation is not deterministic because it uses CuBLAS and you have CUDA >= 10.2"
    with (
        refusal(TrainingError, got=CUBLAS, fix=f"{CUBLAS}=:4096:8"),
        torch_settings(deterministic=True),
    ):
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="other"), torch_settings(deterministic=True):
        raise RuntimeError("other")


def test_threads_are_restored() -> None:
    before = torch.get_num_threads()
    seen = []
    with suppress(ZeroDivisionError), torch_threads(before + 1):
        seen.append(torch.get_num_threads())
        raise ZeroDivisionError
    assert [*seen, torch.get_num_threads()] == [before + 1, before]


def test_the_loop_uses_no_operation_that_cuda_refuses() -> None:
    """Every view, augmentation and constant of the training rows, forward and backward."""
    pictures = [
        f"{source} {picture}" for source in ("kaggle", "eeg") for picture in PICTURES[source]
    ]
    inputs = {
        "views": [*pictures, "raw signals"],
        "normalisation": "robust",
        "height": 36,
    }
    experiment = example_experiment(inputs=inputs, epochs=2, augment=TOGETHER)
    data = all_sources(DATA)
    with RecordedOperations() as recorded:
        train_fold(experiment, data, 0, Process())
    # Without weights, bincount counts integers, in any order.
    assert recorded.names & NO_CUDA_FORM <= {"bincount"}
    assert {"convolution_backward", "_upsample_bilinear2d_aa"} <= recorded.names


def shipped_models() -> set[str]:
    """Models of the shipped experiments; a large one by a smaller one of the same layers."""
    smaller = {
        "convnext_base.fb_in22k_ft_in1k": "convnext_tiny.fb_in22k_ft_in1k",
        "tiny_vit_21m_512.dist_in22k_ft_in1k": "tiny_vit_5m_224.dist_in22k_ft_in1k",
        "mixnet_xl.ra_in1k": "mixnet_s.ft_in1k",
        "tf_efficientnet_b5.ns_jft_in1k": "tf_efficientnet_b0.ns_jft_in1k",
    }
    models = [load_space(file).experiment.model for file in shipped_files()]
    names = {part.name for model in models for part in model.branches or [model]}
    return {smaller.get(name, name) for name in names}


@pytest.mark.parametrize("name", sorted(shipped_models()))
def test_shipped_models_use_no_operation_that_cuda_refuses(name: str) -> None:
    model = build_model(ModelConfig(name=name, pretrained=False, drop_path=0.1), (64, 64))
    with RecordedOperations() as recorded:
        model(torch.randn(2, 1, 64, 64)).square().sum().backward()
    assert not recorded.names & NO_CUDA_FORM


def test_a_refused_operation_would_be_seen() -> None:
    image = torch.randn(1, 1, 4, 4, requires_grad=True)
    with RecordedOperations() as recorded:
        nn.functional.pad(image, (1, 1, 1, 1), mode="reflect").sum().backward()
    assert recorded.names & NO_CUDA_FORM == {"reflection_pad2d_backward"}


def test_both_settings_train() -> None:
    experiment = example_experiment()
    results = [
        train_fold(
            replace_values(experiment, {"training.deterministic": value}), DATA, 0, Process()
        )
        for value in (True, False)
    ]
    np.testing.assert_allclose(results[0].probabilities, results[1].probabilities, atol=1e-3)
