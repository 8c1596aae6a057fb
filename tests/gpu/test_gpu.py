"""Tests that need a CUDA device: NCCL, bfloat16, resident and streamed packs."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from hms_ray.config.augmentation import AugmentConfig, CutMixConfig
from hms_ray.config.experiment import ModelConfig
from hms_ray.config.inputs import InputConfig, Normalisation
from hms_ray.config.space import Space
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.local_command import train_locally
from hms_ray.storage.fold_store import RECORD_FILE, FoldStore
from hms_ray.train import fold_training
from hms_ray.train import windows as windows_module
from hms_ray.train.batches import plan_epoch
from hms_ray.train.images import Images
from hms_ray.train.loop import train_fold
from hms_ray.train.model import build_model
from hms_ray.train.process import Process
from hms_ray.train.score import has_bfloat16, resolve_precision
from hms_ray.train.stages import make_optimiser, make_schedule
from hms_ray.train.step import Step
from hms_ray.train.torch_settings import CUBLAS, CUBLAS_WORKSPACE, torch_settings
from hms_ray.train.trace import StepTrace
from hms_ray.train.windows import Resident, Streamed, open_sources
from hms_ray.transforms.downsample import downsample
from hms_ray.transforms.fit_statistics import FITS
from tests.augmentations import OF_SPECTROGRAMS
from tests.competition_folder import write_competition_folder
from tests.fold_data import example_experiment, example_fold, example_pack
from tests.view_images import make_image

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
DATA = example_fold()
# Before the first product of this process: some tests multiply outside a fold.
os.environ.setdefault(CUBLAS, CUBLAS_WORKSPACE)


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda", 0)


class OneOfOne(Process):
    """A group of a single rank: everything goes through the process group."""

    @property
    def grouped(self) -> bool:
        return True


def test_streamed_and_resident_windows_equal_those_of_the_cpu(device: torch.device) -> None:
    pack: Any = example_pack(4000, window=300, n_frequencies=100)
    starts = [np.random.default_rng(k).integers(0, 3700, 32) for k in range(20)]
    cpu = list(Resident(pack, torch.device("cpu")).stream(starts))
    for source in (Resident(pack, device), Streamed(pack, device)):
        made = []
        for windows in source.stream(starts):
            made.append(windows.cpu())
            # Keeps the device busy while later copies run on their own stream.
            torch.mm(torch.rand(2048, 2048, device=device), torch.rand(2048, 2048, device=device))
        for expected, got in zip(cpu, made, strict=True):
            assert torch.equal(expected.nan_to_num(99.0), got.nan_to_num(99.0))


def test_pack_is_streamed_if_it_would_fill_the_device(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack: Any = example_pack(1000)
    assert open_sources({"": pack}, device)[""].resident
    monkeypatch.setattr(windows_module, "RESIDENT_SHARE", 0.0)
    assert not open_sources({"": pack}, device)[""].resident


@pytest.mark.parametrize("mode", get_args(Normalisation))
@pytest.mark.parametrize("block", [(1, 1), (4, 4)])
def test_images_equal_those_of_the_cpu(
    mode: Any, block: tuple[int, int], device: torch.device
) -> None:
    pack: Any = example_pack(3000, window=300, n_frequencies=100)
    pack.values[100:140, 50:300] = np.nan
    config = InputConfig(views=("panels", "statistics"), normalisation=mode, downsample=block)
    starts, images = np.array([0, 90, 1500]), []
    for place in (torch.device("cpu"), device):
        windows = Resident(pack, place).windows(starts)
        downsampled = downsample(windows, block)
        constants = {"kaggle": FITS[mode](lambda x=downsampled: [x])} if mode in FITS else {}  # type: ignore[misc]
        images.append(make_image({"kaggle": windows}, config, constants))
    on_cpu, on_gpu = images
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-4, atol=1e-4)
    means = [
        downsample(Resident(pack, place).windows(starts), (4, 4)).cpu()
        for place in (torch.device("cpu"), device)
    ]
    torch.testing.assert_close(means[1], means[0], equal_nan=True)


@pytest.mark.parametrize("windows", ["resident", "streamed"])
def test_fold_trains_in_bfloat16(windows: Any, device: torch.device) -> None:
    if not has_bfloat16(device):
        pytest.skip("this CUDA device has no bfloat16")
    experiment = example_experiment(
        epochs=3,
        augment=AugmentConfig(cutmix=CutMixConfig(probability=1.0)),
        inputs={"normalisation": "global"},
    )
    assert resolve_precision("auto", device) == "bfloat16"
    result = train_fold(experiment, DATA, 0, Process(device=device, windows=windows))
    assert result.precision == "bfloat16"
    assert all(0 < line["gpu_memory_gib"] < 16 for line in result.history)
    assert all(line["gradient_norm"] > 0 for line in result.history)
    assert all(value.device.type == "cpu" for value in result.weights.values())
    assert result.weights["conv_stem.weight"].dtype == torch.float32
    np.testing.assert_allclose(result.probabilities.sum(1), 1.0, atol=1e-12)
    cpu = train_fold(experiment, DATA, 0, Process())
    assert result.history[-1]["train_loss"] == pytest.approx(cpu.history[-1]["train_loss"], rel=0.1)
    assert result.normalisation["kaggle"]["mean"] == pytest.approx(
        cpu.normalisation["kaggle"]["mean"], rel=1e-6
    )


@pytest.mark.parametrize("model", ["test_efficientnet", "test_vit"])
@pytest.mark.parametrize("precision", ["auto", "float16", "float32"])
def test_a_fold_trained_twice_has_equal_bits(
    model: str, precision: str, device: torch.device
) -> None:
    experiment = example_experiment(model, precision=precision, epochs=3, augment=OF_SPECTROGRAMS)
    first, second = (train_fold(experiment, DATA, 0, Process(device=device)) for _ in range(2))
    assert np.array_equal(first.probabilities, second.probabilities)
    assert first.weights.keys() == second.weights.keys()
    for name, value in first.weights.items():
        assert torch.equal(value, second.weights[name]), name


@pytest.mark.parametrize("windows", ["resident", "streamed"])
def test_fold_trains_in_float16(
    windows: Any, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = example_experiment("test_vit", epochs=3, precision="float16")
    process = Process(device=device, windows=windows)
    result = train_fold(experiment, DATA, 0, process)
    cpu = train_fold(example_experiment("test_vit", epochs=3), DATA, 0, Process())
    assert result.precision == "float16"
    assert result.weights["patch_embed.proj.weight"].dtype == torch.float32
    assert result.history[-1]["train_loss"] == pytest.approx(cpu.history[-1]["train_loss"], rel=0.1)
    for name in ("step", "learning_rate"):
        assert [r[name] for r in result.history] == [r[name] for r in cpu.history]
    # The first steps overflow and are skipped; this is no error.
    scaler = partial(torch.amp.GradScaler, init_scale=2.0**30)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    late = train_fold(experiment, DATA, 0, process)
    assert np.isfinite(late.probabilities).all()
    assert late.history[-1]["step"] == result.history[-1]["step"]


def test_gpu_without_bfloat16_trains_in_float16(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    assert resolve_precision("auto", device) == "float16"
    assert InProcessRunner(device="cuda").placement.precision(example_experiment()) == "float16"


@pytest.mark.parametrize(
    "augment", [AugmentConfig(cutmix=CutMixConfig(probability=1.0)), OF_SPECTROGRAMS]
)
def test_float64_on_the_gpu_is_float64_on_the_cpu(
    augment: AugmentConfig, device: torch.device
) -> None:
    experiment = example_experiment("test_vit", precision="float64", epochs=2, augment=augment)
    cpu = train_fold(experiment, DATA, 0, Process())
    gpu = train_fold(experiment, DATA, 0, Process(device=device))
    np.testing.assert_allclose(gpu.probabilities, cpu.probabilities, rtol=0, atol=1e-6)


def test_branches_on_the_gpu_are_those_on_the_cpu(device: torch.device) -> None:
    plain = {"name": "test_vit", "pretrained": False, "drop_path": 0.0}
    branches = [
        {"views": ["panels"], **plain},
        {"views": ["statistics"], "size": [32, 48], **plain},
    ]
    model = ModelConfig.model_validate({"branches": branches, "dropout": 0.0})
    experiment = example_experiment("test_vit", precision="float64", epochs=2, accumulate=2)
    experiment = experiment.model_copy(update={"model": model})
    cpu = train_fold(experiment, DATA, 0, Process())
    gpu = train_fold(experiment, DATA, 0, Process(device=device))
    np.testing.assert_allclose(gpu.probabilities, cpu.probabilities, rtol=0, atol=1e-6)


def test_dropout_repeats_and_restores_the_device_generator(device: torch.device) -> None:
    experiment = example_experiment("test_vit").model_copy(
        update={"model": ModelConfig(name="test_vit", pretrained=False, dropout=0.5)}
    )
    torch.cuda.manual_seed(1)
    first = train_fold(experiment, DATA, 0, Process(device=device))
    after = torch.rand(1, device=device)
    second = train_fold(experiment, DATA, 0, Process(device=device))
    np.testing.assert_allclose(first.probabilities, second.probabilities, atol=5e-3)
    torch.cuda.manual_seed(1)
    assert torch.equal(after, torch.rand(1, device=device))


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_fold_is_close_to_an_eager_one_and_repeats_its_bits(
    mode: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(config: ModelConfig, image_size: tuple[int, int], n_channels: int) -> nn.Module:
        features = nn.Conv2d(1, 8, 5, stride=4), nn.BatchNorm2d(8), nn.ReLU()
        return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6))

    # It compiles in seconds.
    monkeypatch.setattr(fold_training, "build_model", build)
    training: dict[str, Any] = {"precision": "float32", "epochs": 3, "augment": OF_SPECTROGRAMS}
    eager, first, second = (
        train_fold(example_experiment(compile=name, **training), DATA, 0, Process(device=device))
        for name in ("off", mode, mode)
    )
    np.testing.assert_allclose(first.probabilities, eager.probabilities, atol=1e-3)
    assert np.array_equal(first.probabilities, second.probabilities)
    assert first.weights.keys() == eager.weights.keys()


@pytest.mark.parametrize("precision", ["auto", "float16"])
def test_the_host_never_waits_for_the_device_in_a_step(
    precision: str, device: torch.device
) -> None:
    experiment = example_experiment(precision=precision, augment=OF_SPECTROGRAMS)
    training, process = experiment.training, Process(device=device)
    (stage,) = training.resolved_stages()
    sources = {"kaggle": Resident(DATA.sources["kaggle"].pack, device)}
    images = Images(DATA, sources, experiment.input, torch.float32)
    model = build_model(experiment.model, images.size).to(device)
    optimiser = make_optimiser(model, training, stage)
    schedule = make_schedule(optimiser, training, stage, 100)
    step = Step(model, process, resolve_precision(precision, device), optimiser, schedule)
    shape = images.joined
    with torch_settings(deterministic=True):
        for epoch in range(3):
            batches = plan_epoch(DATA, DATA.train, training, stage, shape, (0, 0, epoch), process)
            # In the first epoch memory is allocated and libraries start.
            torch.cuda.set_sync_debug_mode("error" if epoch else "default")
            try:
                for batch, image in zip(batches, images.for_training(batches), strict=True):
                    step(batch, image)
            finally:
                torch.cuda.set_sync_debug_mode("default")


def test_a_trace_shows_kernels_of_the_device(tmp_path: Path, device: torch.device) -> None:
    file = tmp_path / "steps.json"
    with StepTrace(file, skip=0, steps=2) as trace:
        process = Process(device=device, on_step=trace.step)
        train_fold(example_experiment(), DATA, 0, process)
    assert trace.n_recorded == 2
    kinds = {event.get("cat") for event in json.loads(file.read_text())["traceEvents"]}
    assert {"kernel", "user_annotation"} <= kinds


def test_nccl_with_one_rank_equals_one_process(tmp_path: Path, device: torch.device) -> None:
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        experiment = example_experiment(
            "test_vit", {"normalisation": "global"}, precision="float64", epochs=2
        )
        grouped = train_fold(experiment, DATA, 0, OneOfOne(device=device))
    finally:
        dist.destroy_process_group()
    alone = train_fold(experiment, DATA, 0, Process(device=device))
    np.testing.assert_allclose(grouped.probabilities, alone.probabilities, rtol=0, atol=1e-8)


def test_local_mode_trains_on_the_gpu(tmp_path: Path) -> None:
    data_dir = write_competition_folder(tmp_path / "hms")
    space = Space.model_validate(
        {
            "experiment": {
                "data": {"n_folds": 2},
                "input": {"downsample": [4, 4]},
                "model": {"name": "test_efficientnet", "pretrained": False, "drop_path": 0.0},
                "training": {"batch_size": 8, "stages": [{"epochs": 1}]},
            }
        }
    )
    assert train_locally(space, data_dir, tmp_path / "results") == 0
    store = FoldStore(tmp_path / "results")
    stored = [store.read(file.parent.name) for file in store.root.glob(f"*/*/{RECORD_FILE}")]
    assert sorted(fold.record["made_from"]["fold"] for fold in stored) == [0, 1]
    assert {fold.record["made_from"]["device_class"] for fold in stored} == {"cuda"}
    for fold in stored:
        configured = fold.record["made_from"]["experiment"]["training"]["precision"]
        assert fold.record["precision"] == configured
