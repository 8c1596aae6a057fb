"""A compiled training step: equal results, plain names, one compilation, a clear error.

The compiler is torch's own up to its last part, which would start g++ for half a minute.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._dynamo.utils import counters

from hms_ray.config.augmentation import AugmentConfig
from hms_ray.config.experiment import Experiment, ModelConfig, canonical
from hms_ray.config.training import StageConfig, TrainingConfig
from hms_ray.errors import TrainingError
from hms_ray.train import compiled, fold_training
from hms_ray.train.joined_encoders import JoinedEncoders
from hms_ray.train.loop import train_fold
from hms_ray.train.process import Process
from tests.augmentations import OF_SPECTROGRAMS
from tests.fold_data import example_experiment, example_fold
from tests.refused import refusal

DATA = example_fold(n_train=41, n_valid=13)
# Batches of 9, 8, 6 and 5 rows; mosaics, mixed images and plain ones.
TRAINING: dict[str, Any] = {
    "stages": (
        StageConfig(name="noisy", rows="below_threshold", epochs=2),
        StageConfig(name="good", rows="at_least_threshold", epochs=1),
    ),
    "stage_threshold": 8,
    "batch_size": 9,
    "augment": OF_SPECTROGRAMS,
}


class OneOfOne(Process):
    """A group of a single rank: the network is wrapped by DDP."""

    @property
    def grouped(self) -> bool:
        return True


class Compilations:
    """Counts how often torch's compiler has traced something."""

    def __init__(self) -> None:
        self._before = self._all()

    def _all(self) -> int:
        return int(counters["stats"]["unique_graphs"])

    def new(self) -> int:
        """Since the last call."""
        before, self._before = self._before, self._all()
        return self._before - before


@pytest.fixture(autouse=True)
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with batch statistics that compiles in half a second."""

    def build(config: ModelConfig, image_size: tuple[int, int], n_channels: int) -> nn.Module:
        features = nn.Conv2d(1, 4, 5, stride=4), nn.BatchNorm2d(4), nn.ReLU()
        return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6))

    monkeypatch.setattr(fold_training, "build_model", build)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> Compilations:
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    return Compilations()


def experiment(compile_: str, **training: Any) -> Experiment:
    return example_experiment("test_resnet", compile=compile_, **training)


def test_compiled_folds_equal_eager_ones_and_compile_once(compilations: Compilations) -> None:
    eager = train_fold(experiment("off", **TRAINING), DATA, 0, Process())
    assert compilations.new() == 0
    first = train_fold(experiment("default", **TRAINING), DATA, 0, Process())
    # Batches of any size and augmentation share it, stages too; evaluations compile nothing.
    assert compilations.new() == 1
    second = train_fold(experiment("default", **TRAINING), DATA, 0, Process())
    # A fold does not use what an earlier one left.
    assert compilations.new() == 1
    np.testing.assert_allclose(first.probabilities, eager.probabilities, rtol=1e-4)
    assert np.array_equal(first.probabilities, second.probabilities)
    assert first.weights.keys() == eager.weights.keys()
    for name, value in first.weights.items():
        assert torch.equal(value, second.weights[name]), name


def test_the_first_batch_of_a_resumed_fold_does_not_decide_how_it_is_compiled(
    compilations: Compilations, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = compiled._Compiled.forward
    sizes: list[int] = []

    def forward(network: Any, image: torch.Tensor) -> torch.Tensor:
        sizes.append(len(image))
        return called(network, image)

    monkeypatch.setattr(compiled._Compiled, "forward", forward)
    # 41 rows in five batches of eight or nine, the largest possible: 12.
    train_fold(experiment("default", batch_size=12), DATA, 0, Process())
    # 41 rows are batches of 11 and 10; the first call has the largest size that is allowed.
    assert sizes == [12, 11, 10, 10, 10]


def test_a_group_compiles_inside_of_its_wrapper(compilations: Compilations, tmp_path: Path) -> None:
    alone = train_fold(experiment("off", **TRAINING), DATA, 0, Process())
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        grouped = train_fold(experiment("default", **TRAINING), DATA, 0, OneOfOne())
    finally:
        dist.destroy_process_group()
    # The wrapper is new in each stage, and no reason to compile again.
    assert compilations.new() == 1
    np.testing.assert_allclose(grouped.probabilities, alone.probabilities, rtol=1e-4)


def test_a_model_that_does_not_compile_names_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(compiled, "BACKEND", backend)
    with refusal(
        TrainingError,
        "the model must compile (training.compile: default)",
        got="no compiler here",
        where="test_resnet",
        fix="Set training.compile: off.",
    ):
        train_fold(experiment("default"), DATA, 0, Process())


@pytest.mark.parametrize(
    ("text", "rule", "got", "fix"),
    [
        (
            "CUDA out of memory. Tried to allocate 2.00 GiB",
            "a fold must fit into the memory of its device",
            "2.00 GiB",
            "Use a smaller training.batch_size",
        ),
        (
            "put_ does not have a deterministic implementation",
            "every operation must be deterministic (training.deterministic)",
            "put_, which has no deterministic form",
            "--set training.deterministic=false",
        ),
    ],
)
def test_other_faults_are_not_those_of_the_compiler(
    text: str, rule: str, got: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backend(graph: Any, inputs: Any) -> Any:
        raise RuntimeError(text)

    monkeypatch.setattr(compiled, "BACKEND", backend)
    with refusal(TrainingError, rule, got=got, fix=fix):
        train_fold(experiment("default"), DATA, 0, Process())


def test_every_memory_layout_of_one_channel_shares_a_compilation(
    compilations: Compilations,
) -> None:
    network = compiled.compiled(nn.Conv2d(1, 2, 3), "default", deterministic=True)
    plain = torch.rand(3, 1, 6, 8)
    for image in (plain, plain.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), plain[:2]):
        network(image)
    torch.compiler.reset()
    assert compilations.new() == 1


def test_options_of_the_compiler_exist_and_follow_the_experiment() -> None:
    assert compiled.BACKEND == "inductor"
    known = torch._inductor.list_options()
    for mode in ("default", "reduce-overhead"):
        options = compiled._options(mode, True)
        assert options is not None
        assert options["deterministic"] is True
        assert options.keys() <= set(known)
        assert options.get("triton.cudagraphs", False) == (mode == "reduce-overhead")


def test_only_a_compiled_experiment_has_the_switch_in_its_key() -> None:
    keys = {
        mode: canonical(Experiment(training=TrainingConfig(compile=mode)))["training"]
        for mode in ("off", "default", "reduce-overhead")
    }
    assert "compile" not in keys["off"]
    assert keys["default"] == {**keys["off"], "compile": "default"}
    assert keys["reduce-overhead"] == {**keys["off"], "compile": "reduce-overhead"}


def test_branches_compile_to_the_same_fold(
    compilations: Compilations, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object) -> nn.Module:
        encoders = [
            nn.Sequential(nn.Conv2d(1, 4, 5, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            for _ in range(2)
        ]
        return JoinedEncoders(encoders, (True, False), 8, 0.0, 6)

    monkeypatch.setattr(fold_training, "build_model", build)

    def probabilities(compile_: str) -> Any:
        branches = [{"views": ["panels"]}, {"views": ["statistics"], "size": [32, 48]}]
        model = ModelConfig.model_validate({"branches": branches})
        changed = experiment(compile_, **TRAINING | {"augment": AugmentConfig()})
        changed = changed.model_copy(update={"model": model})
        return train_fold(changed, DATA, 0, Process()).probabilities

    np.testing.assert_allclose(probabilities("default"), probabilities("off"), rtol=1e-4)
    assert compilations.new() == 1
