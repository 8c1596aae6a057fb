"""Contract of every augmentation: shapes, dtypes, draws, targets, ranks, gradients."""

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from hms_ray.augment.draws import AUGMENTATIONS
from hms_ray.augment.plan import augment_images, draw_plan
from hms_ray.augment.windows import augment_windows
from hms_ray.config.augment_checks import augmentation_fault
from hms_ray.config.augmentation import AugmentConfig
from hms_ray.config.inputs import InputConfig
from hms_ray.config.training import TrainingConfig
from hms_ray.train.batches import Batch, FoldData, plan_epoch
from hms_ray.train.images import Images
from hms_ray.train.process import Process
from hms_ray.transforms.views import join_views
from tests.augmentations import EACH, TOGETHER
from tests.fold_data import all_sources, example_fold, open_images, sources_of

CASES = {**EACH, "window_shift_s": AugmentConfig(window_shift_s=20.0), "together": TOGETHER}
ORDER = ["Fp1-F7", "T5-O1", "F8-Fp2", "T6-O2", "Fp1-F3", "O1-P3", "Fp2-F4", "P4-O2"]
ORDER += ["Fz-Cz", "Cz-Pz"]
RAW = {
    "wide": {"rate_hz": 10, "order": ORDER},
    "centre": {"centre_s": 10, "rate_hz": 50, "order": ORDER, "margin_s": 6},
}
STFT = {"kind": "stft", "window_samples": 50, "order": ORDER}
PAIRS = {
    "wide": {**STFT, "hop_samples": 200},
    "centre": {**STFT, "hop_samples": 50, "centre_s": 10, "margin_s": 6},
}
INPUTS = {
    "one view": InputConfig(),
    "three sources": InputConfig.model_validate(
        {
            "views": ("panels", "eeg percentiles", "raw signals"),
            "downsample": (2, 2),
            "size": (40, 75),
        }
    ),
    "folded signals, over, in, and three channels": InputConfig.model_validate(
        {
            "views": ("raw.wide over raw.centre signals", "pairs.centre in pairs.wide panels"),
            "recipes": {
                "raw": {name: {**recipe, "rows": 5} for name, recipe in RAW.items()},
                "pairs": PAIRS,
            },
            "channels": 3,
        }
    ),
    "signals alone": InputConfig.model_validate(
        {"views": ["raw.wide signals"], "recipes": {"raw": {"wide": {**RAW["wide"], "rows": 5}}}}
    ),
}
SMALL = example_fold(n_train=24, n_valid=4)
DATA = {
    name: sources_of(config, n_rows=17, margin=40) if config.recipes.raw else all_sources(SMALL)
    for name, config in INPUTS.items()
}
ALONE = Process()
REFUSED = {
    ("sign_flip", "one view"),
    ("front_back_flip", "one view"),
    ("pair_drop", "one view"),
    ("narrow_band", "one view"),
    ("together", "one view"),
    *(("signal_mixup", name) for name in list(INPUTS)[:3]),
    *(("centre_shift", name) for name in INPUTS if "over" not in name),
}
"""Augmentations that an input cannot have."""
PAIRS_OF_NAMES = [(name, inputs) for name in CASES for inputs in INPUTS]
every_case = pytest.mark.parametrize(
    ("name", "inputs"), [pair for pair in PAIRS_OF_NAMES if pair not in REFUSED]
)


def planned(
    images: Images, data: FoldData, augment: AugmentConfig, process: Process = ALONE
) -> list[Batch]:
    training = TrainingConfig(batch_size=12, augment=augment, loss="kl_log_votes")
    (stage,) = training.resolved_stages()
    return plan_epoch(data, data.train, training, stage, images.joined, (0, 0, 0), process)


def made(
    images: Images, data: FoldData, augment: AugmentConfig, process: Process = ALONE
) -> tuple[list[Batch], list[torch.Tensor]]:
    batches = planned(images, data, augment, process)
    return batches, list(images.for_training(batches))


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(*both) for both in zip(one, other, strict=True))


def test_every_augmentation_is_tested() -> None:
    assert set(CASES) == {*AugmentConfig.model_fields, "together"}
    assert set(EACH) == set(AUGMENTATIONS)


def test_only_augmentations_that_have_no_meaning_are_refused() -> None:
    refused = {
        (name, inputs)
        for name, inputs in PAIRS_OF_NAMES
        if augmentation_fault(INPUTS[inputs], CASES[name]) is not None
    }
    assert refused == REFUSED


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_dtypes_and_finite_values(name: str, inputs: str, dtype: torch.dtype) -> None:
    data, config = DATA[inputs], INPUTS[inputs]
    images = open_images(data, config, dtype)
    for batch, image in zip(*made(images, data, CASES[name]), strict=True):
        assert image.shape == (len(batch.rows), config.channels, *images.size)
        assert image.dtype == dtype
        assert image.isfinite().all()
        assert image.is_contiguous(memory_format=torch.channels_last)
        assert batch.targets.shape == (len(batch.rows), 6)
        assert batch.targets.min() >= 0
        np.testing.assert_allclose(batch.targets.sum(1), 1.0, rtol=0, atol=1e-12)
        assert batch.weights.min() > 0


@every_case
def test_equal_generators_give_equal_images(name: str, inputs: str) -> None:
    data = DATA[inputs]
    images = open_images(data, INPUTS[inputs])
    torch.manual_seed(1)
    batches, first = made(images, data, CASES[name])
    torch.manual_seed(2)
    _, again = made(images, data, CASES[name])
    assert equal(first, again)
    plain = list(images.for_rows([batch.rows for batch in batches]))
    # A signal has one frequency, which is never masked.
    assert equal(first, plain) is ((name, inputs) == ("frequency_mask", "signals alone"))


def switched_off(config: AugmentConfig) -> AugmentConfig:
    """The same augmentations with a probability of 0."""
    return config.model_copy(
        update={
            field: value.model_copy(update={"probability": 0.0})
            if isinstance(value, BaseModel)
            else 0.0
            for field, value in config
            if value
        }
    )


@every_case
def test_probability_zero_changes_no_bit(name: str, inputs: str) -> None:
    data = DATA[inputs]
    images = open_images(data, INPUTS[inputs])
    batches, off = made(images, data, switched_off(CASES[name]))
    plain = planned(images, data, AugmentConfig())
    assert equal(off, list(images.for_rows([batch.rows for batch in batches])))
    for batch, other in zip(batches, plain, strict=True):
        for field in ("rows", "targets", "weights"):
            np.testing.assert_array_equal(getattr(batch, field), getattr(other, field))


@every_case
def test_ranks_make_the_global_batches(name: str, inputs: str) -> None:
    data = DATA[inputs]
    images = open_images(data, INPUTS[inputs], torch.float64)
    whole, expected = made(images, data, CASES[name])
    ranks = [made(images, data, CASES[name], Process(rank, 2)) for rank in range(2)]
    for number, (batch, image) in enumerate(zip(whole, expected, strict=True)):
        own = torch.cat([images_of_rank[number] for _, images_of_rank in ranks])
        torch.testing.assert_close(own, image, rtol=0, atol=1e-9)
        for field in ("rows", "targets", "weights"):
            parts = [getattr(batches[number], field) for batches, _ in ranks]
            np.testing.assert_array_equal(np.concatenate(parts), getattr(batch, field))


@every_case
def test_source_rows_are_not_changed(name: str, inputs: str) -> None:
    """Training on augmented rows does not change the images that are evaluated."""
    data = DATA[inputs]
    images = open_images(data, INPUTS[inputs])
    values = {source: rows.pack.values.copy() for source, rows in data.sources.items()}
    before = [image.clone() for image in images.for_rows([data.train, data.valid])]
    made(images, data, CASES[name])
    assert equal(before, list(images.for_rows([data.train, data.valid])))
    for source, rows in data.sources.items():
        np.testing.assert_array_equal(rows.pack.values, values[source])


@pytest.mark.parametrize("name", list(CASES))
def test_gradients_are_finite(name: str) -> None:
    """From the image back to the windows; gaps have a gradient of 0."""
    config, data = InputConfig(normalisation="none"), DATA["one view"]
    windows = torch.randn(12, 4, 10, 40, dtype=torch.float64)
    windows[2, 1, 3, 4:9] = float("nan")
    windows.requires_grad_()
    draws = {kind: np.random.default_rng([1, number]) for number, kind in enumerate(AUGMENTATIONS)}
    plan = draw_plan(CASES[name], data.targets[:12], ((40, 40), (40,)), 0, draws)
    changed = windows
    if plan.windows is not None:
        panels = data.sources["kaggle"].pack.panels
        changed = augment_windows(windows, plan.windows, panels, "kaggle")
    image = augment_images(join_views({"kaggle": changed}, config), plan, 12)
    image.pow(3).sum().backward()
    assert windows.grad is not None
    assert windows.grad.isfinite().all()
    assert windows.grad.abs().sum() > 0
