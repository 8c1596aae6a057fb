"""Images of three channels: a panel, and it against the others and its neighbours."""

import numpy as np
import pytest
import torch

from hms_ray.config.augmentation import AugmentConfig
from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.inputs import InputConfig
from hms_ray.config.validation import validated
from hms_ray.errors import ConfigError
from hms_ray.train.loop import train_fold
from hms_ray.train.process import Process
from hms_ray.transforms.views import join_views, minus_neighbours, minus_others
from tests.fold_data import all_sources, example_experiment, open_images, predicted_again
from tests.refused import refusal

DATA = all_sources()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_panels", [2, 4, 16])
def test_contrasts_are_those_of_panels(n_panels: int, dtype: torch.dtype) -> None:
    x = np.random.default_rng(0).normal(size=(3, n_panels, 2, 5))
    others, neighbours = x.copy(), x.copy()
    for p in range(n_panels):
        others[:, p] -= x[:, [q for q in range(n_panels) if q != p]].mean(1)
        beside = [q for q in (p - 1, p + 1) if 0 <= q < n_panels]
        neighbours[:, p] -= x[:, beside].mean(1)
    given = torch.from_numpy(x).to(dtype)
    for found, expected in ((minus_others, others), (minus_neighbours, neighbours)):
        result = found(given)
        assert result.dtype == dtype
        np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("view", ["kaggle panels", "eeg panels", "raw signals"])
def test_channels_are_the_image_and_the_images_of_contrasts(view: str) -> None:
    inputs = {"views": (view,), "normalisation": "none", "size": (32, 48), "raw": {"rows": 2}}
    one, three = (InputConfig.model_validate({**inputs, "channels": n}) for n in (1, 3))
    (source,) = one.parsed_views[0].sources
    shape = DATA.sources[source].shape
    windows = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    image = join_views({source: windows}, three)
    assert image.shape == (2, 3, 32, 48)
    assert image.is_contiguous()
    for channel, contrast in enumerate((lambda x: x, minus_others, minus_neighbours)):
        alone = join_views({source: contrast(windows)}, one)
        assert torch.equal(image[:, channel], alone[:, 0])


def test_a_fold_trains_on_three_channels_and_its_weights_predict() -> None:
    augment = AugmentConfig.model_validate(
        {"cutmix": {"probability": 1.0}, "mixup": {"probability": 1.0}, "mosaic": {"epochs": 1}}
    )
    inputs = {"channels": 3, "views": ("panels", "eeg panels"), "size": (64, 64)}
    experiment = example_experiment(inputs=inputs, epochs=2, augment=augment)
    result = train_fold(experiment, DATA, 0, Process())
    assert result.weights["conv_stem.weight"].shape[1] == 3
    assert open_images(DATA, experiment.input).n_channels == 3
    again = predicted_again(experiment, result, DATA)
    np.testing.assert_allclose(again, result.probabilities, rtol=1e-4, atol=1e-6)


def test_pictures_over_panels_are_refused() -> None:
    rule = (
        "channels: 3 needs views of panels or signals, got kaggle statistics; use another picture"
    )
    given = {"input": {"views": ["panels", "statistics"], "channels": 3}}
    with refusal(ConfigError, rule, where="here"):
        validated(Experiment, given, "here")
    with refusal(ConfigError, "channels: input should be 1 or 3, got 2", where="here"):
        validated(Experiment, {"input": {"channels": 2}}, "here")


def test_one_channel_has_the_key_of_before() -> None:
    assert "channels" not in canonical(Experiment())["input"]
    three = Experiment.model_validate({"input": {"channels": 3}})
    assert canonical(three) != canonical(Experiment())
