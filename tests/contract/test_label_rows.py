"""Contract of every way to choose the window and the votes that a row is trained with."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from hms_ray.config.augmentation import AugmentConfig, CutMixConfig, MixupConfig
from hms_ray.config.inputs import InputConfig
from hms_ray.config.row_targets import LabelSmoothing, TierWeights
from hms_ray.config.training import LabelRowDraw, StageConfig, TrainingConfig
from hms_ray.train.batches import Batch, plan_epoch
from hms_ray.train.process import Process
from tests.augmentations import TOGETHER
from tests.fold_data import all_sources, open_images, with_label_rows

DATA = with_label_rows(all_sources())
INPUT = InputConfig.model_validate(
    {"views": ("panels", "eeg percentiles", "raw signals"), "downsample": (2, 2), "size": (40, 75)}
)
IMAGE = (40, 75), (32, 10, 33)
AUGMENT = AugmentConfig(cutmix=CutMixConfig(probability=1.0), mixup=MixupConfig(probability=1.0))
every_mode = pytest.mark.parametrize("mode", get_args(LabelRowDraw))


def planned(
    mode: LabelRowDraw,
    augment: AugmentConfig = AUGMENT,
    seed: int = 0,
    epoch: int = 0,
    process: Process | None = None,
) -> list[Batch]:
    training = TrainingConfig(
        batch_size=13,
        seed=seed,
        loss="kl_votes",
        label_rows=mode,
        augment=augment,
        tier_weights=TierWeights(decay=(1.2, 0.5, 0.0)),
        label_smoothing=LabelSmoothing(share=0.1, max_votes=9),
        stages=(StageConfig(epochs=4),),
    )
    (stage,) = training.resolved_stages()
    path = (0, 0, epoch)
    return plan_epoch(DATA, DATA.train, training, stage, IMAGE, path, process or Process())


def of_epoch(batches: list[Batch]) -> list[list[int]]:
    return [[] if batch.labels is None else batch.labels.tolist() for batch in batches]


@every_mode
def test_targets_stay_distributions_and_weights_positive(mode: LabelRowDraw) -> None:
    for batch in planned(mode):
        assert batch.targets.shape == (len(batch.rows), 6)
        assert batch.targets.dtype == batch.weights.dtype == np.float64
        np.testing.assert_allclose(batch.targets.sum(1), 1.0, atol=1e-12)
        assert batch.targets.min() >= 0
        assert batch.weights.min() > 0


@every_mode
def test_draws_depend_on_seed_and_epoch_alone(mode: LabelRowDraw) -> None:
    first = of_epoch(planned(mode))
    assert first == of_epoch(planned(mode))
    # What else is drawn for a batch does not change them.
    assert first == of_epoch(planned(mode, AugmentConfig()))
    for other in (planned(mode, seed=1), planned(mode, epoch=1)):
        assert (of_epoch(other) == first) is (mode == "own")


@every_mode
def test_ranks_together_have_the_batches_of_one_process(mode: LabelRowDraw) -> None:
    ranks = [planned(mode, process=Process(rank, 3)) for rank in range(3)]
    for whole, *parts in zip(planned(mode), *ranks, strict=True):
        for name in ("rows", "targets", "weights"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            np.testing.assert_array_equal(joined, getattr(whole, name))
        windows = dict(zip(whole.needed, _labels(whole), strict=True))
        for part in parts:
            assert [windows[row] for row in part.needed] == _labels(part)


def _labels(batch: Batch) -> list[int | None]:
    return [None] * len(batch.needed) if batch.labels is None else batch.labels.tolist()


@every_mode
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_dtypes_and_equal_images_again(mode: LabelRowDraw, dtype: torch.dtype) -> None:
    images = open_images(DATA, INPUT, dtype, cache_bytes=10**7)
    augment = TOGETHER.model_copy(update={"mosaic": None, "window_shift_s": 5.0})
    plain = [image.clone() for image in images.for_rows([DATA.train])]
    made = [list(images.for_training(planned(mode, augment))) for _ in range(2)]
    for batch, image, again in zip(planned(mode, augment), *made, strict=True):
        assert image.shape == (len(batch.rows), 1, *images.size)
        assert image.dtype == dtype
        assert image.isfinite().all()
        assert torch.equal(image, again)
    # The cache keeps the rows' own windows.
    assert torch.equal(next(images.for_rows([DATA.train])), plain[0])


@every_mode
def test_evaluation_has_the_rows_own_windows(mode: LabelRowDraw) -> None:
    images = open_images(DATA, INPUT)
    bare = replace(DATA, labels=None, sources=all_sources().sources)
    expected = next(open_images(bare, INPUT).for_rows([DATA.valid]))
    list(images.for_training(planned(mode)))
    assert torch.equal(next(images.for_rows([DATA.valid])), expected)
