"""Contract of every augmentation: shapes, dtypes, draws, gradients."""

import numpy as np
import pytest
import torch

from hms_ray.augment.draws import AUGMENTATIONS
from hms_ray.augment.plan import augment_images, draw_plan
from hms_ray.augment.windows import augment_windows
from hms_ray.config.augmentation import AugmentConfig
from hms_ray.config.inputs import InputConfig
from hms_ray.config.training import TrainingConfig
from hms_ray.train.batches import Batch, plan_epoch
from hms_ray.train.images import Images
from hms_ray.train.process import Process
from hms_ray.transforms.views import join_views
from tests.augmentations import EACH, TOGETHER
from tests.fold_data import all_sources, open_images

DATA = all_sources()
CASES = {**EACH, "together": TOGETHER}
ELSEWHERE = {"window_shift_s"}
"""Applied when windows are selected, before these tests start."""
WITHOUT_CHAINS = {"sign_flip", "front_back_flip"}
"""Change signals or single pairs; means over chains stay."""
INPUTS = {
    "one view": InputConfig(),
    "three sources": InputConfig.model_validate(
        {
            "views": ("panels", "eeg percentiles", "raw signals"),
            "downsample": (2, 2),
            "size": (40, 75),
            "pad": (44, 80),
        }
    ),
}
every_case = pytest.mark.parametrize("name", list(CASES))
every_input = pytest.mark.parametrize("inputs", list(INPUTS))


def planned(images: Images, name: str, seed: int = 0, epoch: int = 0) -> list[Batch]:
    training = TrainingConfig(batch_size=15, seed=seed, augment=CASES[name], loss="kl_log_votes")
    (stage,) = training.resolved_stages()
    shape, address = images.joined, (0, 0, epoch)
    return plan_epoch(DATA, DATA.train, training, stage, shape, address, Process())


def test_every_augmentation_is_tested() -> None:
    assert set(EACH) == set(AugmentConfig.model_fields) - ELSEWHERE
    assert set(EACH) == set(AUGMENTATIONS)


@every_case
@every_input
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_dtypes_and_finite_values(name: str, inputs: str, dtype: torch.dtype) -> None:
    images = open_images(DATA, INPUTS[inputs], dtype)
    batches = planned(images, name)
    for batch, image in zip(batches, images.for_training(batches), strict=True):
        assert image.shape == (len(batch.rows), 1, *images.size)
        assert image.dtype == dtype
        assert image.isfinite().all()
        assert image.is_contiguous()


@every_case
@every_input
def test_equal_generators_give_equal_images(name: str, inputs: str) -> None:
    images = open_images(DATA, INPUTS[inputs])
    torch.manual_seed(1)
    first = list(images.for_training(planned(images, name)))
    torch.manual_seed(2)
    again = list(images.for_training(planned(images, name)))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    plain = list(images.for_rows([batch.rows for batch in planned(images, name)]))
    changes = inputs != "one view" or name not in WITHOUT_CHAINS
    equal = [torch.equal(one, other) for one, other in zip(first, plain, strict=True)]
    assert all(equal) is not changes


@every_case
@every_input
def test_source_rows_are_not_changed(name: str, inputs: str) -> None:
    """Training on augmented rows does not change the images that are evaluated."""
    images = open_images(DATA, INPUTS[inputs])
    values = {source: rows.pack.values.copy() for source, rows in DATA.sources.items()}
    before = [image.clone() for image in images.for_rows([DATA.train, DATA.valid])]
    list(images.for_training(planned(images, name)))
    after = images.for_rows([DATA.train, DATA.valid])
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    for source, rows in DATA.sources.items():
        np.testing.assert_array_equal(rows.pack.values, values[source])


@every_case
def test_gradients_are_finite(name: str) -> None:
    """From the image back to the windows; gaps have a gradient of 0."""
    config = InputConfig(normalisation="none")
    windows = torch.randn(12, 4, 10, 40, dtype=torch.float64)
    windows[2, 1, 3, 4:9] = float("nan")
    windows.requires_grad_()
    draws = {kind: np.random.default_rng([1, number]) for number, kind in enumerate(AUGMENTATIONS)}
    plan = draw_plan(CASES[name], DATA.targets[:12], ((40, 40), (40,)), 0, draws)
    changed = windows
    if plan.windows is not None:
        panels = DATA.sources["kaggle"].pack.panels
        changed = augment_windows(windows, plan.windows, panels, "kaggle")
    image = augment_images(join_views({"kaggle": changed}, config), plan, 12)
    image.pow(3).sum().backward()
    assert windows.grad is not None
    assert windows.grad.isfinite().all()
    assert windows.grad.abs().sum() > 0
