"""What training computes stays on a GPU, and the host does not wait for it; without a GPU."""

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from hms_ray.config.augmentation import AugmentConfig, CutMixConfig
from hms_ray.config.experiment import Experiment
from hms_ray.config.inputs import InputConfig, Normalisation
from hms_ray.config.views import PICTURES
from hms_ray.train.batches import FoldData, plan_epoch
from hms_ray.train.images import Images
from hms_ray.train.model import build_model
from hms_ray.train.process import Process
from hms_ray.train.score import predict_rows
from hms_ray.train.stages import make_optimiser, make_schedule
from hms_ray.train.step import Step
from hms_ray.train.windows import Resident, open_sources
from hms_ray.transforms.normalise import Constants
from tests.augmentations import EACH, TOGETHER
from tests.fake_gpu import GPU, OnlyOnDevice, fake_gpu, fake_model, gradients_of
from tests.fold_data import all_sources, example_experiment, example_fold

DATA = all_sources(example_fold(n_train=24, n_valid=9))
PROCESS = Process(device=GPU)
AUGMENTATIONS = {
    **EACH,
    "cutmix along frequency": AugmentConfig(cutmix=CutMixConfig(probability=1.0, axis="frequency")),
    "together": TOGETHER,
}


def images_on_gpu(config: InputConfig, data: FoldData = DATA) -> Images:
    packs = {name: rows.pack for name, rows in data.sources.items()}
    images = Images(data, open_sources(packs, GPU, "resident"), config, torch.float32)
    for source, rows in data.sources.items():
        n = rows.pack.n_frequencies // config.treatment(source).downsample[0]
        fitted = {"per_frequency": Constants((0.0,) * n, (1.0,) * n)}
        images.constants[source] = fitted.get(
            config.treatment(source).normalisation, Constants(0.0, 1.0)
        )
    return images


def batches_of(experiment: Experiment, images: Images) -> Any:
    training = experiment.training
    (stage,) = training.resolved_stages()
    shape = images.joined
    return plan_epoch(DATA, DATA.train, training, stage, shape, (0, 0, 0), PROCESS)


def test_windows_are_gathered_on_the_device() -> None:
    starts = np.arange(5)
    with fake_gpu():
        source = Resident(DATA.sources["kaggle"].pack, GPU)
        with OnlyOnDevice():
            assert source.windows(starts).device == GPU


@pytest.mark.parametrize("mode", get_args(Normalisation))
def test_every_normalisation_and_picture_is_made_on_the_device(mode: Any) -> None:
    config = InputConfig.model_validate(
        {
            "views": [f"{source} {name}" for source, names in PICTURES.items() for name in names],
            "normalisation": mode,
            "downsample": (1, 2),
            "eeg": {"normalisation": mode, "downsample": (2, 1)},
            "raw": {"normalisation": mode, "rows": 4},
            "size": (32, 48),
        }
    )
    with fake_gpu():
        images = images_on_gpu(config)
        with OnlyOnDevice():
            (image,) = images.for_rows([DATA.valid])
    assert image.device == GPU
    assert image.shape == (9, 1, 32, 48)


@pytest.mark.parametrize("augment", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
@pytest.mark.parametrize("shift_s", [0.0, 20.0])
def test_every_augmentation_is_applied_on_the_device(
    augment: AugmentConfig, shift_s: float
) -> None:
    inputs: dict[str, Any] = {
        "views": ("panels", "eeg statistics", "raw signals"),
        "normalisation": "per_frequency",
        # Columns that four parts of a mosaic do not divide evenly.
        "size": (40, 83),
        # Fewer seconds than the signals: a magnified centre.
        "eeg": {"margin_s": shift_s + 5, "centre_s": 20},
        "raw": {"margin_s": shift_s},
    }
    if augment.signal_mixup is not None:
        inputs["views"] = ("raw signals",)
    augment = augment.model_copy(update={"window_shift_s": shift_s})
    experiment = example_experiment(inputs=inputs, augment=augment, batch_size=8)
    with fake_gpu():
        images = images_on_gpu(experiment.input)
        batches = batches_of(experiment, images)
        with OnlyOnDevice():
            made = list(images.for_training(batches))
    assert {image.device for image in made} == {GPU}


@pytest.mark.parametrize("model", ["test_efficientnet", "test_vit"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_step_and_the_evaluation_run_on_the_device(
    model: str, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The scaler and autocast of float16 turn themselves off on a machine without CUDA.
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    experiment = example_experiment(model, batch_size=8)
    training = experiment.training
    (stage,) = training.resolved_stages()
    network = build_model(experiment.model, (64, 64))
    monkeypatch.setattr(Tensor, "backward", gradients_of(network))
    with fake_gpu():
        images = images_on_gpu(experiment.input)
        fake_model(network)
        optimiser = make_optimiser(network, training, stage)
        schedule = make_schedule(optimiser, training, stage, 6)
        step = Step(network, PROCESS, precision, optimiser, schedule)
        assert step.scaler.is_enabled() == (precision == "float16")
        batches = batches_of(experiment, images)
        with OnlyOnDevice():
            for batch, image in zip(batches, images.for_training(batches), strict=True):
                assert step(batch, image).device == GPU
            state = [value for held in optimiser.state.values() for value in held.values()]
            assert {value.device for value in state} == {GPU}
            with pytest.raises(EvaluatedError):
                predict_rows(network, images, DATA.valid, 8, precision, Evaluating(device=GPU))


class EvaluatedError(Exception):
    """All rows are predicted; the table comes to the host next."""


class Evaluating(Process):
    def all_reduce_sum(self, values: Tensor) -> Tensor:
        assert values.device == GPU
        raise EvaluatedError


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: bool(x.isnan().any()),
        lambda x: x.cpu(),
        lambda x: x + torch.ones(4),
        lambda x: x + torch.tensor(1.0, device="cpu"),
        lambda x: x[torch.arange(2)],
        lambda x: x + torch.from_numpy(np.ones(4)).to(x.device),
        lambda x: x + torch.from_numpy(np.ones(4)).to(x.device, non_blocking=True),
    ],
)
def test_the_guard_refuses_what_makes_the_host_wait(work: Callable[[Tensor], object]) -> None:
    with fake_gpu():
        x = torch.empty(4, device=GPU)
        with OnlyOnDevice(), pytest.raises((AssertionError, RuntimeError)):
            work(x)
