"""Augmentation plans: order, draws, parts, and any combination of augmentations."""

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_ray.augment.blocks import hide_blocks
from hms_ray.augment.cutmix import apply_cutmix
from hms_ray.augment.draws import AUGMENTATIONS
from hms_ray.augment.mixup import apply_mixup, mix_signals
from hms_ray.augment.mosaic import apply_mosaic
from hms_ray.augment.narrow_band import frequencies_of
from hms_ray.augment.plan import AugmentationPlan, augment_images, draw_plan
from hms_ray.augment.windows import augment_windows
from hms_ray.config.augmentation import AugmentConfig, MixupConfig, MosaicConfig
from hms_ray.config.inputs import InputConfig, used_sources
from hms_ray.config.training import StageConfig, TrainingConfig
from hms_ray.errors import ConfigError
from hms_ray.train import downsampled, fold_training
from hms_ray.train.batches import Batch, plan_epoch, split_epoch
from hms_ray.train.loop import train_fold
from hms_ray.train.losses import row_weights
from hms_ray.train.process import Process
from hms_ray.train.seeds import Purpose, derive_seed, seed_sequence
from hms_ray.transforms.downsample import downsample
from hms_ray.transforms.views import join_views
from tests.augmentations import COMBINATIONS, EACH, MIXED_TWICE, TOGETHER
from tests.fold_data import PANELS, all_sources, cut_windows, example_experiment, open_images

DATA = all_sources()
INPUTS = InputConfig.model_validate(
    {
        "views": ("panels", "eeg percentiles", "raw signals"),
        "downsample": (2, 2),
        "raw": {"normalisation": "per_image", "rows": 2},
        "size": (40, 78),
    }
)


MAKER = open_images(DATA, INPUTS, torch.float64)
SHAPE = MAKER.joined


def draw(
    config: AugmentConfig, epoch: int = 0, batches: int = 4, seed: int = 0
) -> list[AugmentationPlan]:
    targets = DATA.targets[DATA.train[:12]]
    draws = {
        kind: np.random.default_rng([seed, number]) for number, kind in enumerate(AUGMENTATIONS)
    }
    return [draw_plan(config, targets, SHAPE, epoch, draws) for _ in range(batches)]


def planned(process: Process, config: AugmentConfig, epoch: int = 0, **options: Any) -> list[Batch]:
    training = TrainingConfig(
        batch_size=12, loss="kl_capped_votes", augment=config, seed=3, **options
    )
    (stage,) = training.resolved_stages()
    return plan_epoch(DATA, DATA.train, training, stage, SHAPE, (0, 0, epoch), process)


def whole_batches(config: AugmentConfig, epoch: int) -> list[tuple[torch.Tensor, Any, Any]]:
    """Images, targets and weights of an epoch's global batches, step by step."""
    order = np.random.default_rng(seed_sequence(3, 0, 0, epoch, "order"))
    draws = {
        kind: np.random.default_rng(seed_sequence(3, 0, 0, epoch, kind)) for kind in AUGMENTATIONS
    }
    made = []
    for places in split_epoch(len(DATA.train), 12, order):
        rows = DATA.train[places]
        plan = draw_plan(config, DATA.targets[rows], SHAPE, epoch, draws)
        kept = {}
        for name in used_sources(INPUTS):
            source = DATA.sources[name]
            block = INPUTS.treatment(name).downsample
            kept[name] = downsample(cut_windows(source, rows), block, torch.float64)
            if plan.signals is not None:
                kept[name] = mix_signals(kept[name], plan.signals)
            if plan.windows is not None:
                hz = None if name == "kaggle" else frequencies_of(INPUTS.source_config(name))
                panels = source.pack.panels
                kept[name] = augment_windows(kept[name], plan.windows, panels, name, hz)
        image = join_views(kept, INPUTS)
        if plan.blocks is not None:
            image = hide_blocks(image, plan.blocks)
        targets, weights = (
            DATA.targets[rows],
            row_weights("kl_capped_votes", DATA.total_votes[rows]),
        )
        if plan.signals is not None:
            targets, weights = plan.signals.mixed(targets), plan.signals.mixed(weights)
        if plan.mosaic is not None:
            four = plan.mosaic.members.T
            image = apply_mosaic(image, plan.mosaic)
            targets, weights = sum(targets[k] for k in four) / 4, np.ones(len(rows))
        elif plan.cutmix is not None:
            image = apply_cutmix(image, plan.cutmix)
        if plan.mixup is not None:
            share, partners = plan.mixup.share, plan.mixup.partners
            image = apply_mixup(image, plan.mixup)
            targets = share * targets + (1 - share) * targets[partners]
            weights = share * weights + (1 - share) * weights[partners]
        made.append((image, targets, weights))
    return made


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("epoch", [0, 1])
def test_ranks_make_slices_of_the_global_batch(world_size: int, epoch: int) -> None:
    config = MIXED_TWICE
    plans = [planned(Process(rank, world_size), config, epoch) for rank in range(world_size)]
    made = [list(MAKER.for_training(batches)) for batches in plans]
    kinds = set()
    for number, (image, targets, weights) in enumerate(whole_batches(config, epoch)):
        parts = [batches[number] for batches in plans]
        own = torch.cat([rank[number] for rank in made])
        torch.testing.assert_close(own, image, rtol=0, atol=1e-12)
        for got, expected in (
            (np.concatenate([part.targets for part in parts]), targets),
            (np.concatenate([part.weights for part in parts]), weights),
        ):
            np.testing.assert_allclose(got, expected, rtol=1e-12)
        plan = parts[0].plan
        kinds |= {name for name in ("cutmix", "mosaic", "mixup") if getattr(plan, name)}
    assert kinds == ({"cutmix", "mosaic", "mixup"} if epoch == 0 else {"cutmix", "mixup"})


def test_batch_of_mosaics_has_no_other_image_augmentation_and_weight_one() -> None:
    config = AugmentConfig(
        mosaic=MosaicConfig(epochs=2), mixup=MixupConfig(), cutmix=EACH["cutmix"].cutmix
    )
    for normalise in (False, True):
        (first, *_), (later, *_) = (
            planned(Process(), config, epoch, normalise_weights=normalise) for epoch in (1, 2)
        )
        assert first.plan.mosaic is not None
        assert first.plan.cutmix is None
        assert first.plan.mixup is None
        np.testing.assert_array_equal(first.weights, np.ones(len(first.rows)))
        assert later.plan.mosaic is None
        assert later.plan.cutmix is not None
        assert later.plan.mixup is not None
        mean = np.minimum(DATA.total_votes[later.rows], 10).mean() if not normalise else 1
        assert later.weights.mean() == pytest.approx(mean, rel=1e-12)


def test_cutmix_is_applied_before_mixup() -> None:
    config = AugmentConfig(cutmix=EACH["cutmix"].cutmix, mixup=MixupConfig(alpha=5.0))
    (plan,) = draw(config, batches=1)
    rows = torch.randn(12, 1, 40, 78)
    assert plan.cutmix is not None
    assert plan.mixup is not None
    expected = apply_mixup(apply_cutmix(rows, plan.cutmix), plan.mixup)
    assert torch.equal(augment_images(rows, plan, 12), expected)


@given(config=COMBINATIONS, seed=st.integers(0, 10**6), own=st.sets(st.integers(0, 11), min_size=1))
def test_part_of_any_plan_makes_the_rows_of_the_whole_plan(
    config: AugmentConfig, seed: int, own: set[int]
) -> None:
    (plan,) = draw(config, batches=1, seed=seed)
    rows = np.array(sorted(own))
    needed, part = plan.part(rows)
    assert len(np.unique(needed)) == len(needed)
    images = torch.from_numpy(np.random.default_rng(seed).random((12, 1, 40, 78)))
    own_images, all_images = images[torch.from_numpy(needed)], images
    if plan.signals is not None and part.signals is not None:
        own_images, all_images = (
            mix_signals(given, signals)
            for given, signals in ((own_images, part.signals), (images, plan.signals))
        )
    made = augment_images(own_images, part, len(rows))
    expected = augment_images(all_images, plan, 12)[torch.from_numpy(rows)]
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-12)
    if plan.windows is not None and part.windows is not None:
        made_rows = needed[: len(part.windows.mirrored)]
        windows = images.view(12, 4, 10, 78)
        of_part = augment_windows(windows[made_rows], part.windows, PANELS, "kaggle")
        of_whole = augment_windows(windows, plan.windows, PANELS, "kaggle")[made_rows]
        torch.testing.assert_close(of_part, of_whole, rtol=0, atol=0, equal_nan=True)


@settings(max_examples=20, deadline=None)
@given(config=COMBINATIONS, epoch=st.integers(0, 1000), world_size=st.integers(1, 4))
def test_any_combination_is_finite_repeatable_and_independent_of_ranks(
    config: AugmentConfig, epoch: int, world_size: int
) -> None:
    whole = planned(Process(), config, epoch)
    assert repr(planned(Process(), config, epoch)) == repr(whole)
    ranks = [planned(Process(rank, world_size), config, epoch) for rank in range(world_size)]
    parts = zip(*(zip(r, MAKER.for_training(r), strict=True) for r in ranks), strict=True)
    for batch, image, own in zip(whole, MAKER.for_training(whole), parts, strict=True):
        assert image.isfinite().all()
        assert (batch.targets >= 0).all()
        np.testing.assert_allclose(batch.targets.sum(1), 1.0, rtol=0, atol=1e-12)
        assert (batch.weights > 0).all()
        joined = torch.cat([of_rank for _, of_rank in own])
        torch.testing.assert_close(joined, image, rtol=0, atol=1e-12)
        for name in ("rows", "targets", "weights"):
            joined_values = np.concatenate([getattr(of_rank, name) for of_rank, _ in own])
            np.testing.assert_array_equal(joined_values, getattr(batch, name))


def test_empty_plan_copies_nothing() -> None:
    (plan,) = draw(AugmentConfig(), batches=1)
    assert plan == AugmentationPlan()
    rows = torch.randn(12, 1, 4, 8)
    assert augment_images(rows, plan, 12) is rows
    (batch, *_) = planned(Process(), AugmentConfig())
    assert np.array_equal(batch.needed, batch.rows)
    np.testing.assert_array_equal(batch.targets, DATA.targets[batch.rows])


def drawn_by(plan: AugmentationPlan, kind: str) -> Any:
    if kind in ("cutmix", "mosaic", "mixup"):
        return getattr(plan, kind)
    if kind in ("signal_mixup", "block_drop"):
        return {"signal_mixup": plan.signals, "block_drop": plan.blocks}[kind]
    names = {
        "hemisphere_flip": "mirrored",
        "front_back_flip": "front_back",
        "lateral_swap": "lateral",
        "chain_shuffle": "chain_orders",
        "time_flip": "reversed_",
        "sign_flip": "negated",
        "narrow_band": "narrowed",
        "time_zoom": "spans",
        "pair_drop": "lost",
        "channel_drop": "dropped",
        "time_mask": "time_masks",
        "frequency_mask": "frequency_masks",
    }
    return getattr(plan.windows, names[kind])


@pytest.mark.parametrize("kind", [kind for kind in AUGMENTATIONS if kind != "centre_shift"])
def test_augmentation_does_not_change_draws_of_others(kind: str) -> None:
    """Over several batches, and in an epoch without mosaics, which would replace others."""
    # Mixed signals change classes, and so who can swap bands with whom.
    every = TOGETHER if kind == "cutmix" else MIXED_TWICE
    together = AugmentConfig(**{**dict(every), "mosaic": MosaicConfig(probability=0.5)})
    if kind != "mosaic":
        together = AugmentConfig(**{**dict(together), "mosaic": None})
    alone = AugmentConfig(**{kind: getattr(together, kind)})
    seen = set()
    for one, both in zip(draw(alone, 1, 8), draw(together, 1, 8), strict=True):
        drawn = repr(drawn_by(one, kind))
        assert drawn == repr(drawn_by(both, kind))
        seen.add(drawn)
    assert len(seen) > 1, "nothing was drawn"


def test_seeds_of_purposes_and_ranks_differ() -> None:
    purposes = [name for part in get_args(Purpose) for name in get_args(part) or (part,)]
    assert set(AUGMENTATIONS) < set(purposes)
    seeds = {derive_seed(0, 0, 0, 0, name, rank) for name in purposes for rank in range(4)}
    assert len(seeds) == 4 * len(purposes) == 4 * (len(AUGMENTATIONS) + 6)


def test_golden_seeds() -> None:
    """Any change here is a change of every stored result."""
    seeds = {kind: derive_seed(0, 0, 0, 0, kind) for kind in AUGMENTATIONS}
    assert seeds == {
        "hemisphere_flip": 4966885325456218337,
        "front_back_flip": 3510921604492990654,
        "lateral_swap": 5746049721472873488,
        "chain_shuffle": 1794734362907915208,
        "time_flip": 4424587847845589322,
        "sign_flip": 8973870027847936372,
        "channel_drop": 2637435602147486967,
        "pair_drop": 7700163136692325994,
        "narrow_band": 2194480977431058119,
        "time_zoom": 5356904363251894359,
        "signal_mixup": 5574542605436964442,
        "block_drop": 1762010351602141892,
        "centre_shift": 5474799747604672949,
        "time_mask": 8881440238372333426,
        "frequency_mask": 4248315450129780074,
        "cutmix": 423754965713666790,
        "mosaic": 1263210428115903871,
        "mixup": 2610767975997714119,
    }


def test_streamed_resident_and_cached_windows_give_equal_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment = example_experiment(augment=TOGETHER, inputs=INPUTS.model_dump())
    results = [train_fold(experiment, DATA, 0, Process(windows="streamed"))]
    for budget in (0, 20_000, 2**30):
        monkeypatch.setattr(downsampled, "MAX_CACHE_BYTES", budget)
        results.append(train_fold(experiment, DATA, 0, Process(windows="resident")))
    for result in results[1:]:
        assert np.array_equal(result.probabilities, results[0].probabilities)
        assert all(torch.equal(w, results[0].weights[name]) for name, w in result.weights.items())
    plain = train_fold(example_experiment(inputs=INPUTS.model_dump()), DATA, 0, Process())
    assert not np.array_equal(plain.probabilities, results[0].probabilities)


@pytest.mark.parametrize(
    ("config", "inputs", "rule"),
    [
        (EACH["mosaic"], {"size": (32, 3)}, "at least 4 columns in each view, got 3"),
        (EACH["hemisphere_flip"], {"views": ("eeg panels",)}, "panels of both sides.*of eeg"),
        (EACH["channel_drop"], {"views": ("eeg panels",)}, "panels of every chain.*of eeg"),
    ],
)
def test_unsuitable_augmentation_is_refused_before_training(
    config: AugmentConfig, inputs: dict[str, Any], rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        fold_training, "build_model", lambda *arguments: pytest.fail("a model was built")
    )
    eeg = DATA.sources["eeg"]
    narrow: Any = replace(eeg.pack, panels=("LL", "LP", "RL", "A"))  # type: ignore[type-var]
    data = replace(DATA, sources={**DATA.sources, "eeg": replace(eeg, pack=narrow)})
    stages = (StageConfig(), StageConfig(augment=config))
    with pytest.raises(ConfigError, match=rule):
        train_fold(example_experiment(stages=stages, inputs=inputs), data, 0, Process())
