"""Every augmentation alone at its strongest, all together, and any combination."""

from hypothesis import strategies as st

from hms_ray.config.augmentation import (
    AugmentConfig,
    CutMixConfig,
    MaskConfig,
    MixupConfig,
    MosaicConfig,
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
)
"""Mosaics and other batches in the first epoch, no mosaics later."""
OF_SPECTROGRAMS = TOGETHER.model_copy(update={"sign_flip": 0.0, "front_back_flip": 0.0})
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
)
