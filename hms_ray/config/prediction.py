"""How rows are predicted: flipped and shifted too, with the mean of the probabilities."""

from __future__ import annotations

from itertools import chain, combinations
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args

from pydantic import AfterValidator

from hms_ray.config.augmentation import AugmentConfig
from hms_ray.config.eeg_recipes import Frozen, RawRecipe
from hms_ray.config.inputs import InputConfig, used_sources
from hms_ray.config.views import PICTURES

Flip = Literal["hemisphere_flip", "front_back_flip", "lateral_swap", "time_flip", "sign_flip"]
FLIPS: Final[tuple[Flip, ...]] = get_args(Flip)
"""Augmentations without a strength, named as in ``AugmentConfig``."""

_EEG_RATE_HZ: Final = 200
_WINDOW_S: Final = 50.0
_ROUNDING: Final = 1e-9


class RowVariant(NamedTuple):
    """One way to see a row.

    Attributes:
        flips: that are applied to its windows.
        shift_s: seconds towards later times.
    """

    flips: tuple[Flip, ...] = ()
    shift_s: float = 0.0

    @property
    def augment(self) -> AugmentConfig:
        """The augmentation that makes these flips of every row."""
        return AugmentConfig.model_validate(dict.fromkeys(self.flips, 1.0))


AS_THEY_ARE: Final = RowVariant()
"""Rows without flip and shift."""


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"each value must be given once, got {twice[0]} twice")
    return values


class PredictionConfig(Frozen):
    """What is averaged to predict a row, in every evaluation, submission and export.

    A row is predicted with each combination of flips, none of them included, and each shift,
    0 included. The prediction is the mean of these probabilities.
    """

    flips: Annotated[tuple[Flip, ...], AfterValidator(_distinct)] = ()
    """Flips of all sources of a row, as in ``augment``: two of them give four predictions
    (a leading team's mean of 4). Default: none."""
    shifts_s: Annotated[tuple[float, ...], AfterValidator(_distinct)] = ()
    """Shifts of the window, seconds, such as [-2, 2]. They must stay within the 50 s of a test
    EEG: each source needs a ``centre_s`` that leaves room, and a ``margin_s``. Default: none."""

    @property
    def variants(self) -> tuple[RowVariant, ...]:
        """All combinations, the row as it is first; in one order for any order of the fields."""
        flips = [flip for flip in FLIPS if flip in self.flips]
        sets = chain.from_iterable(combinations(flips, n) for n in range(len(flips) + 1))
        shifts = [0.0, *sorted(set(self.shifts_s) - {0.0})]
        return tuple(RowVariant(chosen, shift) for chosen in sets for shift in shifts)

    def canonical(self) -> dict[str, Any] | None:
        """What changes predictions, as plain data; None if rows are predicted as they are."""
        found: dict[str, Any] = {}
        if self.flips:
            found["flips"] = [flip for flip in FLIPS if flip in self.flips]
        if shifts := sorted(set(self.shifts_s) - {0.0}):
            found["shifts_s"] = shifts
        return found or None


def shift_fault(config: InputConfig, shift_s: float) -> str | None:
    """Why an input's windows cannot be moved by ``shift_s`` when they are predicted.

    Training rows may have a recording around them, test recordings have not: a shift that they
    do not allow would give out-of-fold predictions that a submission does not have.
    """
    for source, recipe in used_sources(config).items():
        if recipe is None:
            return (
                "prediction.shifts_s needs sources that are made from the EEG, since test "
                "recordings have nothing around a ten-minute spectrogram; remove its views, or "
                "shifts_s"
            )
        place = f"input.{source if source in PICTURES else f'recipes.{source}'}"
        hop = 1 if isinstance(recipe, RawRecipe) else recipe.frame_hop
        step_s = hop / (recipe.rate_hz if isinstance(recipe, RawRecipe) else _EEG_RATE_HZ)
        moved = round(abs(shift_s) / step_s)
        if moved == 0:
            return (
                f"prediction.shifts_s must move the windows of {source} by at least one position, "
                f"{step_s:g} s, got {shift_s:g} s"
            )
        if moved > recipe.margin:
            return (
                f"{place}.margin_s must be at least the largest of prediction.shifts_s, "
                f"{moved * step_s:g} s, got {recipe.margin_s:g} s"
            )
        room_s = (_WINDOW_S - recipe.centre_s) / 2
        if moved * step_s > room_s + _ROUNDING:
            return (
                f"prediction.shifts_s must stay within the 50 s of a test EEG: at most "
                f"{room_s:g} s with {place}.centre_s {recipe.centre_s:g}, got {shift_s:g} s; use a "
                "smaller shift or centre_s"
            )
    return None
