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
    single = "-" in panels[0]
    if single and config.pair_drop is not None and len(panels) <= config.pair_drop.largest:
        return PanelFault("pair_drop", f"more than its {config.pair_drop.largest} pairs", "null")
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
    kinds = {kind_of_source(source) for source in used_sources(config)}
    return _unseen(augment, kinds) or _centre_fault(config, augment)


def centre_sources(config: InputConfig) -> frozenset[str]:
    """Magnified centres: recipes of EEGs that use fewer seconds than another one of the views."""
    seconds = {
        source: recipe.centre_s
        for source, recipe in used_sources(config).items()
        if recipe is not None
    }
    longest = max(seconds.values(), default=0.0)
    return frozenset(source for source, used_s in seconds.items() if used_s < longest)


def _listed_orders(sources: dict[str, SourceConfig]) -> Iterator[tuple[str, Sequence[str]]]:
    """Sources with a list of pairs; named orders have all pairs."""
    for source, config in sources.items():
        if not isinstance(config, EegConfig) and not isinstance(config.order, str):
            yield source, config.order


def _unseen(augment: AugmentConfig, kinds: set[str]) -> str | None:
    """Why an augmentation would change no view, or part of what it has to change."""
    if augment.sign_flip and "raw" not in kinds:
        return (
            "augment.sign_flip needs a view of raw signals, since a spectrogram has no sign; "
            "add one to input.views, or set sign_flip: 0"
        )
    for field, off, reason in (
        ("front_back_flip", 0, "the mean over a chain does not change"),
        ("pair_drop", "null", "panels of other sources are means over chains"),
        ("narrow_band", "null", "panels of other sources are means over chains"),
    ):
        if getattr(augment, field) and not kinds & {"pairs", "raw"}:
            return (
                f"augment.{field} needs a view of pairs or raw, since {reason}; add one to "
                f"input.views, or set {field}: {off}"
            )
    if augment.signal_mixup is not None and kinds != {"raw"}:
        return (
            "augment.signal_mixup needs views of raw alone, since the spectrogram of a sum is not "
            f"a sum of spectrograms, got {', '.join(sorted(kinds))}; use mixup, which mixes "
            "images, and set signal_mixup: null"
        )
    return None


def _centre_fault(config: InputConfig, augment: AugmentConfig) -> str | None:
    """Why no centre can be shifted as far as configured."""
    if augment.centre_shift is None:
        return None
    centres = centre_sources(config)
    if not centres:
        return (
            "augment.centre_shift needs a recipe that uses fewer seconds than another one of "
            "input.views; set its centre_s, or use window_shift_s, which shifts all sources"
        )
    needed_s = augment.centre_shift.largest_s + augment.window_shift_s
    for source in sorted(centres):
        margin_s = config.source_config(source).margin_s
        if margin_s < needed_s:
            place = f"recipes.{source}" if "." in source else source
            return (
                f"input.{place}.margin_s must be at least the largest shift of the centre, "
                f"augment.centre_shift.largest_s + window_shift_s = {needed_s:g} s, got "
                f"{margin_s:g} s"
            )
    return None
