"""What an augmentation needs of the inputs; checked before anything is packed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hms_ray.config.augmentation import AugmentConfig
from hms_ray.config.electrodes import CHAINS
from hms_ray.config.inputs import EegConfig, InputConfig, SourceConfig, used_sources
from hms_ray.config.panel_maps import (
    FRONT_BACK,
    LEFT_RIGHT,
    PanelMap,
    chain_places,
    mirrored_panels,
    reordered_chains,
)
from hms_ray.config.views import kind_of_source


class PanelFault(NamedTuple):
    """Panels that do not allow an augmentation.

    Attributes:
        field: of ``AugmentConfig``.
        rule: what the augmentation needs, after "FIELD needs".
        off: value of the field that switches it off.
    """

    field: str
    rule: str
    off: str


def panel_fault(config: AugmentConfig, panels: Sequence[str]) -> PanelFault | None:
    """The first augmentation that the panels of a source do not allow.

    Args:
        config: augmentations and their strengths.
        panels: names of chains (``LL``) or bipolar pairs (``Fp1-F7``).
    """
    same = PanelMap(tuple(range(len(panels))), (1,) * len(panels))
    if config.hemisphere_flip and mirrored_panels(panels, LEFT_RIGHT) in (None, same):
        return PanelFault("hemisphere_flip", "panels of both sides, each with its counterpart", "0")
    if config.front_back_flip and mirrored_panels(panels, FRONT_BACK) is None:
        return PanelFault("front_back_flip", "for each pair its counterpart in front or back", "0")
    for field, value in (
        ("lateral_swap", config.lateral_swap),
        ("chain_shuffle", config.chain_shuffle),
    ):
        if value and reordered_chains(panels) is None:
            return PanelFault(field, "the same panels of all four chains", "0")
    chains = {place.chain for place in chain_places(panels) if place is not None}
    if config.channel_drop and len(chains) < len(CHAINS):
        return PanelFault("channel_drop", "panels of every chain", "0")
    return None


def augmentation_fault(config: InputConfig, augment: AugmentConfig) -> str | None:
    """Why an input does not allow an augmentation, with the remedy; None if it does."""
    sources = {
        source: config.source_config(source)
        for source in used_sources(config)
        if source != "kaggle"
    }
    for source, order in _listed_orders(sources):
        fault = panel_fault(augment, order)
        if fault is not None:
            return (
                f"augment.{fault.field} needs {fault.rule}, got {' '.join(order)} in the order of "
                f"{source}; list the missing pairs, or set {fault.field}: {fault.off}"
            )
    return _unseen(augment, {kind_of_source(source) for source in sources})


def _listed_orders(sources: dict[str, SourceConfig]) -> Iterator[tuple[str, Sequence[str]]]:
    """Sources with a list of pairs; named orders have all pairs."""
    for source, config in sources.items():
        if not isinstance(config, EegConfig) and not isinstance(config.order, str):
            yield source, config.order


def _unseen(augment: AugmentConfig, kinds: set[str]) -> str | None:
    """Why an augmentation would change no view."""
    if augment.sign_flip and "raw" not in kinds:
        return (
            "augment.sign_flip needs a view of raw signals, since a spectrogram has no sign; "
            "add one to input.views, or set sign_flip: 0"
        )
    if augment.front_back_flip and not kinds & {"pairs", "raw"}:
        return (
            "augment.front_back_flip needs a view of pairs or raw, since the mean over a chain "
            "does not change; add one to input.views, or set front_back_flip: 0"
        )
    return None
