"""What the model sees: sources and their recipes, views, and how they are joined."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NamedTuple, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from hms_ray.config.eeg_recipes import Count, EegRecipe, Frozen, Positive, RawRecipe
from hms_ray.config.pair_recipes import PairsRecipe, SignalRecipe
from hms_ray.config.views import PICTURES, View, kind_of_source, parse_view
from hms_ray.text import closest

Normalisation = Literal["none", "per_image", "per_panel", "global", "per_frequency", "robust"]


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


SourceConfig = EegConfig | PairsConfig | RawConfig
RecipeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Recipes(Frozen):
    """Further recipes by name: views name them ``SOURCE.NAME``, such as ``pairs.centre``.

    Each has the fields of its source and their defaults.
    """

    eeg: dict[RecipeName, EegConfig] = Field(default_factory=dict)
    """Recipes of the source eeg."""
    pairs: dict[RecipeName, PairsConfig] = Field(default_factory=dict)
    """Recipes of the source pairs."""
    raw: dict[RecipeName, RawConfig] = Field(default_factory=dict)
    """Recipes of the source raw."""


class Treatment(NamedTuple):
    """What is done to the windows of a source before the pictures are made."""

    normalisation: Normalisation
    downsample: tuple[int, int]


def sound_view(text: str) -> str:
    """The text of a view, checked.

    Raises:
        ValueError: see ``parse_view``.
    """
    parse_view(text)
    return text


class InputConfig(Frozen):
    """What the model sees."""

    views: Annotated[
        tuple[Annotated[str, AfterValidator(sound_view)], ...], Field(min_length=1)
    ] = ("panels",)
    """Pictures that are joined side by side: ``SOURCE PICTURE`` each, such as
    ``eeg percentiles``, or ``PICTURE`` of the source kaggle, the ten-minute spectrograms
    of the competition. ``SOURCE.NAME`` is one of ``recipes``. ``A over B panels`` puts the
    parts of each panel under each other; ``A in B panels`` puts A into the middle of B."""
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
    recipes: Recipes = Recipes()
    """Further recipes by source and name, so that one image can have several of a source."""
    splice_s: Positive | None = None
    """Seconds of B that A replaces in a view ``A in B PICTURE``. Default: the seconds that A
    covers; fewer keep part of them at both scales."""
    channels: Literal[1, 3] = 1
    """Channels of the image. 3: each panel or signal; it minus the mean of all others of its
    source; and it minus the mean of its neighbours in their order (a leading team's). Needs
    views of ``panels`` or ``signals``."""
    height: Count | None = None
    """Height, pixels, to which every view is resized before they are joined. Default: the
    height of the first view."""
    size: tuple[Count, Count] | None = None
    """Height and width, pixels, to which the joined image is resized (bilinear). Default:
    not resized."""
    pad: tuple[Count, Count] | None = None
    """Height and width, pixels, to which the image is padded with zeros on all sides, equally or
    with one more at the bottom and the right, after everything else, augmentation of images
    too (a leading team's: 504 x 464 to 512 x 512). Default: not padded."""

    @property
    def parsed_views(self) -> tuple[View, ...]:
        """The views with their sources."""
        return tuple(parse_view(text) for text in self.views)

    def treatment(self, source: str) -> Treatment:
        """Normalisation and block size of a source."""
        if source == "kaggle":
            return Treatment(self.normalisation, self.downsample)
        config = self.source_config(source)
        return Treatment(config.normalisation, config.downsample)

    def source_config(self, source: str) -> SourceConfig:
        """Recipe and treatment of a source other than kaggle, such as ``eeg`` or ``eeg.full``.

        Raises:
            KeyError: if no recipe has this name.
        """
        kind, _, name = source.partition(".")
        config: SourceConfig = getattr(self.recipes, kind)[name] if name else getattr(self, kind)
        return config

    def spliced_columns(self, view: View) -> int:
        """Columns of the second source that the first one replaces in a view joined by ``in``."""
        centre, whole = (self.source_config(source) for source in view.sources)
        step_s = (
            whole.rows / whole.rate_hz if isinstance(whole, RawConfig) else whole.frame_hop / 200
        )
        seconds = self.splice_s or centre.centre_s
        return int(seconds / (step_s * whole.downsample[1]) + _ROUNDING)

    @model_validator(mode="after")
    def _channels_have_panels(self) -> Self:
        for view in self.parsed_views:
            if self.channels != 1 and view.picture not in ("panels", "signals"):
                raise ValueError(
                    f"channels: 3 needs views of panels or signals, got {view}; use another "
                    "picture, or channels: 1"
                )
        return self

    @model_validator(mode="after")
    def _recipes_exist_and_fit(self) -> Self:
        for view in self.parsed_views:
            for source in view.sources:
                kind, _, name = source.partition(".")
                if kind == "kaggle" and not name:
                    continue
                known = {} if kind == "kaggle" else getattr(self.recipes, kind)
                if name not in known and source != kind:
                    raise ValueError(
                        f"input.recipes.{kind} must have the recipe {name} of the view {view}"
                        + closest(name, known)
                    )
            if view.join and len({_panel_order(self.source_config(s)) for s in view.sources}) > 1:
                raise ValueError(
                    f"joined recipes must have the same panels in the same order, got {view}"
                )
        return self


_ROUNDING: Final = 1e-9


def _panel_order(config: SourceConfig) -> object:
    if isinstance(config, EegConfig):
        return config.kind in ("mel", "mel_fixed")
    return config.order, config.midline and isinstance(config.order, str)


RecipeType = TypeVar("RecipeType", EegRecipe, PairsRecipe, RawRecipe)

Recipe = SignalRecipe | None
"""How the values of a source are made; None for kaggle, which has no recipe."""


def used_sources(config: InputConfig) -> dict[str, Recipe]:
    """The sources of an input's views and their recipes.

    Returns:
        Source, or ``SOURCE.NAME`` -> recipe, in the order of the views; None for kaggle.
    """
    sources = [source for view in config.parsed_views for source in view.sources]
    return {
        source: None if source == "kaggle" else _recipe(config.source_config(source))
        for source in dict.fromkeys(sources)
    }


def source_path(source: str) -> str:
    """Dotted path of a source's recipe and treatment in an experiment."""
    if source == "kaggle":
        return "input"
    return f"input.{source}" if source in PICTURES else f"input.recipes.{source}"


def margin_fault(config: InputConfig, shift_s: float) -> str | None:
    """Why the margins of an input's sources do not allow shifts of up to ``shift_s`` seconds."""
    for source, recipe in used_sources(config).items():
        if recipe is not None and recipe.margin_s < shift_s:
            return (
                f"{source_path(source)}.margin_s must be at least the largest "
                f"augment.window_shift_s, {shift_s:g} s, got {recipe.margin_s:g} s"
            )
    return None


def _recipe(config: SourceConfig) -> SignalRecipe:
    if isinstance(config, EegConfig):
        return _only(EegRecipe, config)
    if isinstance(config, RawConfig):
        return _only(RawRecipe, config)
    return _only(PairsRecipe, config)


def _only(recipe: type[RecipeType], config: RecipeType) -> RecipeType:
    """The recipe in an input's configuration, without its other fields."""
    return recipe.model_validate(config.model_dump(include=set(recipe.model_fields)))


def canonical_input(config: InputConfig) -> dict[str, Any]:
    """The part of an input that changes images, as plain data.

    The sources of every view are written out, named recipes are numbered in the order of the
    views, and sources that no view uses are removed.
    """
    data = config.model_dump(mode="json", exclude={"eeg", "pairs", "raw", "recipes"})
    used = list(used_sources(config))
    numbered = {
        source: f"{kind_of_source(source)}.{number}" if "." in source else source
        for number, source in enumerate(used)
    }
    views = config.parsed_views
    data["views"] = [
        str(view._replace(sources=tuple(numbered[source] for source in view.sources)))
        for view in views
    ]
    # Results from before these fields have keys without them.
    if config.channels == 1:
        del data["channels"]
    if config.pad is None:
        del data["pad"]
    if "kaggle" not in used:
        del data["normalisation"], data["downsample"]
    if not any(view.join == "in" for view in views):
        del data["splice_s"]
    for source in used:
        if source != "kaggle":
            data[numbered[source]] = _canonical_source(config.source_config(source))
    return data


def _canonical_source(config: SourceConfig) -> dict[str, Any]:
    if isinstance(config, PairsConfig):
        return _canonical_pairs(config)
    if isinstance(config, RawConfig):
        return _canonical_raw(config)
    # Default numbers and the same numbers given are one recipe.
    return config.model_dump(mode="json") | {
        "window_samples": config.frame_samples,
        "hop_samples": config.frame_hop,
        "n_frames": config.n_frames,
    }


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
    parts = path.split(".")
    if parts[:2] == ["input", "recipes"]:
        parts = ["input", *parts[2:3], *parts[4:]]
    return len(parts) > 2 and parts[0] == "input" and parts[2] in _RECIPE_FIELDS.get(parts[1], ())


_RECIPE_FIELDS: Final[dict[str, frozenset[str]]] = {
    "eeg": frozenset(EegRecipe.model_fields),
    "pairs": frozenset(PairsRecipe.model_fields),
    "raw": frozenset(RawRecipe.model_fields),
}
