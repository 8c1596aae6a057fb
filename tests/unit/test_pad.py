"""Images padded with zeros: after augmentation, part of the cache key, refused if too small."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.augmentation import AugmentConfig
from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.inputs import InputConfig
from hms_ray.config.space import Space
from hms_ray.errors import ConfigError
from hms_ray.experiment.preflight import image_size_of, preflight
from hms_ray.train.batches import plan_epoch
from hms_ray.train.loop import train_fold
from hms_ray.train.process import Process
from hms_ray.transforms.views import padded
from tests.fold_data import (
    example_experiment,
    example_fold,
    open_images,
    predicted_again,
    two_sources,
)
from tests.refused import refusal

DATA = two_sources(example_fold())


@pytest.mark.parametrize("size", [(5, 7), (8, 7), (5, 12), (9, 12)])
def test_zeros_surround_the_image_as_equally_as_possible(size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 7))
    down, right = size[0] - 5, size[1] - 7
    around = [(0, 0), (0, 0), (down // 2, -(-down // 2)), (right // 2, -(-right // 2))]
    np.testing.assert_array_equal(padded(torch.from_numpy(x), size), np.pad(x, around))


def test_augmented_images_are_padded_last() -> None:
    """CutMix and mosaic see the image alone, and its draws do not depend on the padding."""
    inputs = {"views": ("panels", "eeg panels"), "size": (40, 50)}
    augment = {"cutmix": {"probability": 1.0}, "mosaic": {"probability": 0.5}, "mixup": {}}
    experiment = example_experiment(inputs=inputs, augment=AugmentConfig.model_validate(augment))
    (stage,) = experiment.training.resolved_stages()
    made = []
    for pad in (None, (43, 64)):
        images = open_images(DATA, experiment.input.model_copy(update={"pad": pad}))
        assert images.size == (pad or (40, 50))
        batches = plan_epoch(
            DATA, DATA.train, experiment.training, stage, images.joined, (0, 0, 0), Process()
        )
        made.append([*images.for_training(batches), *images.for_rows([DATA.valid])])
    for alone, larger in zip(*made, strict=True):
        assert torch.equal(larger, padded(alone, (43, 64)))
        assert larger.is_contiguous(memory_format=torch.channels_last)


def test_a_fold_trains_on_padded_images_and_its_weights_predict() -> None:
    experiment = example_experiment(inputs={"size": (40, 50), "pad": (64, 64)})
    result = train_fold(experiment, DATA, 0, Process())
    again = predicted_again(experiment, result, DATA)
    np.testing.assert_allclose(again, result.probabilities, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("inputs", [{"pad": [399, 300]}, {"size": [400, 300], "pad": [400, 299]}])
def test_a_pad_below_the_image_is_refused_before_packing(inputs: dict[str, Any]) -> None:
    experiment = Experiment.model_validate({"input": inputs, "model": {"pretrained": False}})
    rule = "input.pad must be at least the size of the image, 400 x 300"
    fix = "Set a larger input.pad, or a smaller input.size."
    with refusal(ConfigError, rule, got=str(inputs["pad"]), fix=fix):
        image_size_of(experiment.input)
    rows = pd.DataFrame(DATA.targets, columns=list(TARGET_COLUMNS)).assign(
        total_votes=DATA.total_votes, fold=np.arange(len(DATA.targets)) % 5
    )
    with refusal(ConfigError, rule, got=str(inputs["pad"]), fix=fix):
        preflight(Space(experiment=experiment), rows)


def test_the_padded_size_is_that_of_the_model_and_of_the_key() -> None:
    assert image_size_of(InputConfig(pad=(416, 320))) == (416, 320)
    assert "pad" not in canonical(Experiment())["input"]
    other = Experiment.model_validate({"input": {"pad": [416, 320]}})
    assert canonical(other)["input"]["pad"] == [416, 320]
