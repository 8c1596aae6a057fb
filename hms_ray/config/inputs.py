"""What the model sees: sources and their recipes, views, and how they are joined."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, Field

from hms_ray.config.eeg_recipes import Count, EegRecipe, Frozen, RawRecipe
from hms_ray.config.pair_recipes import PairsRecipe, SignalRecipe

Source = Literal["kaggle", "eeg", "pairs", "raw"]
Normalisation = Literal["none", "per_image", "per_panel", "global", "per_frequency", "robust"]

PICTURES: Final[dict[str, tuple[str, ...]]] = {
    "kaggle": ("panels", "statistics", "percentiles"),
    "eeg": ("panels", "statistics", "percentiles"),
    "pairs": ("panels",),
    "raw": ("signals",),
}
"""Source -> its pictures (see ``transforms.views``). Statistics over the panels of the
chains describe a place on the head; over single pairs they would not."""


class EegConfig(EegRecipe):
    """EEG spectrograms as an input: the recipe, and how its windows are treated."""

    normalisation: Normalisation = "none"
    """See ``input.normalisation`` (published: none, since ``mel`` is relative already)."""
    downsample: tuple[Count, Count] = (1, 1)
    """Block (frequency, time) whose values are averaged first; (1, 1) averages nothing."""


class PairsConfig(PairsRecipe):
    """Spectrograms of single electrode pairs as an input: recipe, and treatment of windows."""

    normalisation: Normalisation = "none"
    """See ``input.normalisation``; ``none`` keeps the recipe's fixed scale."""
    downsample: tuple[Count, Count] = (1, 1)
    """Block (frequency, time) whose values are averaged first; (1, 1) averages nothing."""


class RawConfig(RawRecipe):
    """EEG signals as an input: the recipe, and how its windows are treated."""

    normalisation: Normalisation = "none"
    """See ``input.normalisation``. ``per_image`` and ``per_panel`` both normalise each
    signal alone, and ``per_frequency`` equals ``global``."""
    downsample: tuple[Count, Count] = (1, 1)
    """Block (1, samples) whose values are averaged first; (1, 1) averages nothing."""
    rows: Count = 1
    """Image rows per signal. With more than one, a column holds that many successive
    samples, from top to bottom: P x T becomes (P * rows) x (T / rows), and time still runs
    along the width."""


class View(NamedTuple):
    """A picture of a source."""

    source: Source
    picture: str

    def __str__(self) -> str:
        return f"{self.source} {self.picture}"


class Treatment(NamedTuple):
    """What is done to the windows of a source before the pictures are made."""

    normalisation: Normalisation
    downsample: tuple[int, int]


def parse_view(text: str) -> View:
    """A view from ``SOURCE PICTURE``, or ``PICTURE`` of the source kaggle.

    Raises:
        ValueError: if the source is unknown or does not have the picture.
    """
    words = text.split()
    source = words[0] if len(words) == 2 else "kaggle"
    if len(words) not in (1, 2) or source not in PICTURES:
        raise ValueError(
            f"a view must be SOURCE PICTURE with the source {', '.join(PICTURES)} (default: kaggle)"
        )
    if words[-1] not in PICTURES[source]:
        others = [name for name, pictures in PICTURES.items() if words[-1] in pictures]
        raise ValueError(
            f"a picture of {source} must be one of {', '.join(PICTURES[source])}"
            + (f" ({words[-1]} belongs to {', '.join(others)})" if others else "")
        )
    return View(source, words[-1])  # type: ignore[arg-type]


def _sound_view(text: str) -> str:
    parse_view(text)
    return text


class InputConfig(Frozen):
    """What the model sees."""

    views: Annotated[
        tuple[Annotated[str, AfterValidator(_sound_view)], ...], Field(min_length=1)
    ] = ("panels",)
    """Pictures that are joined side by side: ``SOURCE PICTURE`` each, such as
    ``eeg percentiles``, or ``PICTURE`` of the source kaggle, the ten-minute spectrograms
    of the competition."""
    normalisation: Normalisation = "per_image"
    """How values of the source kaggle are centred and scaled. ``per_image``: over what a
    view shows, each of the ``panels`` alone, all four together for ``statistics`` and
    ``percentiles`` (published). ``per_panel``: over each panel alone in every view, which
    removes differences between left and right. The others are fitted per fold and source,
    on all training rows: ``global`` one mean and standard deviation; ``per_frequency`` one
    pair per frequency, which flattens the 1/f slope and keeps the amplitude; ``robust``
    the median and the interquartile range / 1.349."""
    downsample: tuple[Count, Count] = (1, 1)
    """Block (frequency, time) over which log power of the source kaggle is averaged first;
    (1, 1) averages nothing."""
    eeg: EegConfig = EegConfig()
    """EEG spectrograms, for the views of the source eeg."""
    pairs: PairsConfig = PairsConfig()
    """Spectrograms with a panel per electrode pair, for the views of the source pairs."""
    raw: RawConfig = RawConfig()
    """EEG signals, for the views of the source raw."""
    height: Count | None = None
    """Height, pixels, to which every view is resized before they are joined. Default: the
    height of the first view."""
    size: tuple[Count, Count] | None = None
    """Height and width, pixels, to which the joined image is resized (bilinear). Default:
    not resized."""

    @property
    def parsed_views(self) -> tuple[View, ...]:
        """The views with their sources."""
        return tuple(parse_view(text) for text in self.views)

    def treatment(self, source: str) -> Treatment:
        """Normalisation and block size of a source."""
        if source == "kaggle":
            return Treatment(self.normalisation, self.downsample)
        config: EegConfig | PairsConfig | RawConfig = getattr(self, source)
        return Treatment(config.normalisation, config.downsample)


RecipeType = TypeVar("RecipeType", EegRecipe, PairsRecipe, RawRecipe)

Recipe = SignalRecipe | None
"""How the values of a source are made; None for kaggle, which has no recipe."""


def used_sources(config: InputConfig) -> dict[str, Recipe]:
    """The sources of an input's views and their recipes.

    Returns:
        Source -> recipe, in the order of the views; None for kaggle.
    """
    recipes: dict[str, Recipe] = {
        "kaggle": None,
        "eeg": _only(EegRecipe, config.eeg),
        "pairs": _only(PairsRecipe, config.pairs),
        "raw": _only(RawRecipe, config.raw),
    }
    return {view.source: recipes[view.source] for view in config.parsed_views}


def margin_fault(config: InputConfig, shift_s: float) -> str | None:
    """Why the margins of an input's sources do not allow shifts of up to ``shift_s`` seconds."""
    for source, recipe in used_sources(config).items():
        if recipe is not None and recipe.margin_s < shift_s:
            return (
                f"input.{source}.margin_s must be at least the largest augment.window_shift_s, "
                f"{shift_s:g} s, got {recipe.margin_s:g} s"
            )
    return None


def _only(recipe: type[RecipeType], config: RecipeType) -> RecipeType:
    """The recipe in an input's configuration, without its other fields."""
    return recipe.model_validate(config.model_dump(include=set(recipe.model_fields)))


def canonical_input(config: InputConfig) -> dict[str, Any]:
    """The part of an input that changes images, as plain data.

    The source of every view is written out, and sources that no view uses are removed.
    """
    data = config.model_dump(mode="json")
    data["views"] = [str(view) for view in config.parsed_views]
    used = {view.source for view in config.parsed_views}
    if "kaggle" not in used:
        del data["normalisation"], data["downsample"]
    for source in {"eeg", "pairs", "raw"} - used:
        del data[source]
    if "eeg" in used:
        # Default numbers and the same numbers given are one recipe.
        data["eeg"] |= {
            "window_samples": config.eeg.frame_samples,
            "hop_samples": config.eeg.frame_hop,
            "n_frames": config.eeg.n_frames,
        }
    if "pairs" in used:
        data["pairs"] = _canonical_pairs(config.pairs)
    if "raw" in used:
        data["raw"] = _canonical_raw(config.raw)
    return data


def _canonical_pairs(config: PairsConfig) -> dict[str, Any]:
    """Values of a recipe with its defaults written out, without those that it does not use."""
    data = config.model_dump(mode="json")
    data |= {
        "window_samples": config.frame_samples,
        "hop_samples": config.frame_hop,
        "n_fft": config.transform_points,
        "n_frames": config.kept_frames,
        "frequencies_hz": list(config.limits_hz),
        "scale": config.power_scale,
    }
    if config.kind == "stft":
        del data["n_mels"], data["mels"]
    if config.power_scale == "log1p":
        del data["smallest_power"]
    if not isinstance(config.order, str):
        del data["midline"]
    return data


def _canonical_raw(config: RawConfig) -> dict[str, Any]:
    data = config.model_dump(mode="json")
    if config.order == "chains":
        # Results from before this field have keys without it.
        del data["order"]
    elif not isinstance(config.order, str):
        del data["midline"]
    return data


def in_recipe(path: str) -> bool:
    """Whether a dotted path into an experiment leads into a recipe, and so to other packs."""
    return any(path == recipe or path.startswith(f"{recipe}.") for recipe in _RECIPE_PATHS)


_RECIPE_PATHS: Final = (
    *(f"input.eeg.{name}" for name in EegRecipe.model_fields),
    *(f"input.pairs.{name}" for name in PairsRecipe.model_fields),
    *(f"input.raw.{name}" for name in RawRecipe.model_fields),
)
