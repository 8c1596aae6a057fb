"""Every augmentation alone at its strongest, all together, and any combination."""

from hypothesis import strategies as st

from hms_ray.config.augmentation import (
    AugmentConfig,
    BlockDropConfig,
    CentreShiftConfig,
    CutMixConfig,
    MaskConfig,
    MixupConfig,
    MosaicConfig,
    NarrowBandConfig,
    PairDropConfig,
    SignalMixupConfig,
    TimeZoomConfig,
)

MASK = MaskConfig(probability=1.0, largest=0.45, n_masks=2)
EACH = {
    "cutmix": AugmentConfig(cutmix=CutMixConfig(probability=1.0)),
    "mosaic": AugmentConfig(mosaic=MosaicConfig()),
    "mixup": AugmentConfig(mixup=MixupConfig(alpha=1.0)),
    "time_mask": AugmentConfig(time_mask=MASK),
    "frequency_mask": AugmentConfig(frequency_mask=MASK),
    "hemisphere_flip": AugmentConfig(hemisphere_flip=1.0),
    "front_back_flip": AugmentConfig(front_back_flip=1.0),
    "lateral_swap": AugmentConfig(lateral_swap=1.0),
    "chain_shuffle": AugmentConfig(chain_shuffle=1.0),
    "time_flip": AugmentConfig(time_flip=1.0),
    "sign_flip": AugmentConfig(sign_flip=1.0),
    "channel_drop": AugmentConfig(channel_drop=1.0),
    "pair_drop": AugmentConfig(pair_drop=PairDropConfig(probability=1.0)),
    "narrow_band": AugmentConfig(narrow_band=NarrowBandConfig(probability=1.0)),
    "time_zoom": AugmentConfig(time_zoom=TimeZoomConfig(probability=1.0)),
    "signal_mixup": AugmentConfig(signal_mixup=SignalMixupConfig(probability=1.0, alpha=1.0)),
    "block_drop": AugmentConfig(block_drop=BlockDropConfig(probability=1.0, largest=0.2)),
    "centre_shift": AugmentConfig(centre_shift=CentreShiftConfig(probability=1.0)),
}
"""By field of the configuration."""
TOGETHER = AugmentConfig(
    cutmix=CutMixConfig(probability=0.7),
    mosaic=MosaicConfig(probability=0.5, epochs=1),
    mixup=MixupConfig(probability=0.7, alpha=0.4),
    time_mask=MaskConfig(),
    frequency_mask=MaskConfig(n_masks=2),
    hemisphere_flip=0.5,
    front_back_flip=0.5,
    lateral_swap=0.3,
    chain_shuffle=0.3,
    time_flip=0.5,
    sign_flip=0.5,
    channel_drop=0.3,
    pair_drop=PairDropConfig(),
    narrow_band=NarrowBandConfig(probability=0.5),
    time_zoom=TimeZoomConfig(),
    block_drop=BlockDropConfig(largest=0.2),
)
"""Mosaics and other batches in the first epoch, no mosaics later; for inputs with raw signals
or pairs."""
MIXED_TWICE = TOGETHER.model_copy(update={"signal_mixup": SignalMixupConfig(alpha=1.0)})
"""``TOGETHER`` with mixed signals too; an experiment allows it for raw views alone."""
OF_SPECTROGRAMS = TOGETHER.model_copy(
    update={"sign_flip": 0.0, "front_back_flip": 0.0, "pair_drop": None, "narrow_band": None}
)
"""``TOGETHER`` for inputs of chains alone."""

_CHANCES = st.floats(0, 1)
_MASKS = st.none() | st.builds(
    MaskConfig,
    probability=_CHANCES,
    largest=st.floats(0.01, 0.45),
    n_masks=st.integers(1, 2),
)
COMBINATIONS = st.builds(
    AugmentConfig,
    cutmix=st.none()
    | st.builds(CutMixConfig, probability=_CHANCES, axis=st.sampled_from(("time", "frequency"))),
    mosaic=st.none() | st.builds(MosaicConfig, probability=_CHANCES),
    mixup=st.none() | st.builds(MixupConfig, probability=_CHANCES, alpha=st.floats(0.1, 5)),
    time_mask=_MASKS,
    frequency_mask=_MASKS,
    hemisphere_flip=_CHANCES,
    front_back_flip=_CHANCES,
    lateral_swap=_CHANCES,
    chain_shuffle=_CHANCES,
    time_flip=_CHANCES,
    sign_flip=_CHANCES,
    channel_drop=_CHANCES,
    pair_drop=st.none()
    | st.builds(PairDropConfig, probability=_CHANCES, largest=st.integers(1, 15)),
    narrow_band=st.none() | st.builds(NarrowBandConfig, probability=_CHANCES),
    time_zoom=st.none()
    | st.builds(TimeZoomConfig, probability=_CHANCES, largest=st.floats(0.01, 0.5)),
    signal_mixup=st.none()
    | st.builds(SignalMixupConfig, probability=_CHANCES, alpha=st.floats(0.1, 5)),
    block_drop=st.none()
    | st.builds(BlockDropConfig, probability=_CHANCES, largest=st.floats(0.01, 0.5)),
)
