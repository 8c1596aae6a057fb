"""What the model sees: sources and their recipes, views, and how they are joined."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, Field

from hms_ray.config.eeg_recipes import Count, EegRecipe, Frozen, RawRecipe

Source = Literal["kaggle", "eeg", "raw"]
Normalisation = Literal["none", "per_image", "per_panel", "global", "per_frequency", "robust"]

PICTURES: Final[dict[str, tuple[str, ...]]] = {
    "kaggle": ("panels", "statistics", "percentiles"),
    "eeg": ("panels", "statistics", "percentiles"),
    "raw": ("signals",),
}
"""Source -> its pictures (drawn in ``views``): statistics over the chains' panels say
something about a place on the head, over single signals they do not."""


class EegConfig(EegRecipe):
    """The EEG source as an input: its recipe and what is done to its windows."""

    normalisation: Normalisation = "none"
    """As of ``input``; published: none, for the recipe ``mel`` is one already."""
    downsample: tuple[Count, Count] = (1, 1)
    """Blocks (frequency, time) that are averaged before all else."""


class RawConfig(RawRecipe):
    """The raw source as an input: its recipe and what is done to its windows."""

    normalisation: Normalisation = "none"
    """As of ``input``. ``per_image`` and ``per_panel`` both measure each signal alone; a
    signal has one frequency, so ``per_frequency`` is ``global``."""
    downsample: tuple[Count, Count] = (1, 1)
    """Blocks (1, samples) that are averaged before all else."""
    rows: Count = 1
    """Image rows a signal. With more than one, a column holds that many samples of
    it in turn, from above: P x T becomes (P * rows) x (T / rows), and time still
    runs along the width."""


class View(NamedTuple):
    """A picture of a source."""

    source: Source
    picture: str

    def __str__(self) -> str:
        return f"{self.source} {self.picture}"


class Treatment(NamedTuple):
    """What is done to a source's windows before they become pictures."""

    normalisation: Normalisation
    downsample: tuple[int, int]


def parse_view(text: str) -> View:
    """A view from ``SOURCE PICTURE``; a source left out is kaggle.

    Raises:
        ValueError: an unknown source, or a picture that the source does not have.
    """
    words = text.split()
    source = words[0] if len(words) == 2 else "kaggle"
    if len(words) not in (1, 2) or source not in PICTURES:
        raise ValueError(
            f"a view must be SOURCE PICTURE with a source of {', '.join(PICTURES)} (kaggle "
            "where left out)"
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
    """``SOURCE PICTURE`` each, such as ``eeg percentiles``; a source left out is
    kaggle, the competition's own ten-minute spectrograms. Several are joined side by
    side."""
    normalisation: Normalisation = "per_image"
    """Of kaggle. ``per_image`` measures what a view shows: each of the ``panels`` alone,
    all four together for ``statistics`` and ``percentiles`` (published). ``per_panel``
    measures each panel alone in every view, which erases left against right. The others
    are fitted once a fold and source, on all training rows: ``global`` one mean and
    deviation; ``per_frequency`` one of each frequency, which flattens the 1/f slope and
    keeps amplitude; ``robust`` the median and interquartile range / 1.349."""
    downsample: tuple[Count, Count] = (1, 1)
    """Of kaggle: blocks (frequency, time) over which log power is averaged first."""
    eeg: EegConfig = EegConfig()
    """Spectrograms made of the EEG; used where a view asks for them."""
    raw: RawConfig = RawConfig()
    """Signals of the EEG; used where a view asks for them."""
    height: Count | None = None
    """Height to which every view is resized before they are joined; the first one's
    where absent."""
    size: tuple[Count, Count] | None = None
    """Height and width to which the image is resized (bilinear), or as it is."""

    @property
    def parsed_views(self) -> tuple[View, ...]:
        """The views with their sources."""
        return tuple(parse_view(text) for text in self.views)

    def treatment(self, source: str) -> Treatment:
        """Normalisation and block of a source."""
        if source == "kaggle":
            return Treatment(self.normalisation, self.downsample)
        config = self.eeg if source == "eeg" else self.raw
        return Treatment(config.normalisation, config.downsample)


Kind = TypeVar("Kind", bound=Frozen)

Recipe = EegRecipe | RawRecipe | None
"""What decides a source's values; None for kaggle, which has only one."""


def used_sources(config: InputConfig) -> dict[str, Recipe]:
    """The sources that the views ask for, with nothing but their recipes.

    Returns:
        Source -> recipe, in the order of the views; None for kaggle.
    """
    recipes: dict[str, Recipe] = {
        "kaggle": None,
        "eeg": _only(EegRecipe, config.eeg),
        "raw": _only(RawRecipe, config.raw),
    }
    return {view.source: recipes[view.source] for view in config.parsed_views}


def margin_fault(config: InputConfig, shift_s: float) -> str | None:
    """What is wrong with the margins of an input's sources for shifts of up to ``shift_s``."""
    for source, recipe in used_sources(config).items():
        if recipe is not None and recipe.margin_s < shift_s:
            return (
                f"input.{source}.margin_s must be at least the largest augment.window_shift_s, "
                f"{shift_s:g} s, got {recipe.margin_s:g} s"
            )
    return None


def _only(kind: type[Kind], config: Kind) -> Kind:
    """A copy of a configuration that holds a base class's fields and no others."""
    return kind.model_validate(config.model_dump(include=set(kind.model_fields)))


def canonical_input(config: InputConfig) -> dict[str, Any]:
    """What of an input changes images, as plain data.

    Sources are spelled out, and what belongs to a source that no view uses is dropped.
    """
    data = config.model_dump(mode="json")
    data["views"] = [str(view) for view in config.parsed_views]
    used = {view.source for view in config.parsed_views}
    if "kaggle" not in used:
        del data["normalisation"], data["downsample"]
    for source in {"eeg", "raw"} - used:
        del data[source]
    if "eeg" in used:
        # A recipe's own numbers and the same ones given are one recipe.
        data["eeg"] |= {
            "window_samples": config.eeg.frame_samples,
            "hop_samples": config.eeg.frame_hop,
            "n_frames": config.eeg.n_frames,
        }
    return data


def in_recipe(path: str) -> bool:
    """Whether a dotted path into an experiment leads into what decides a pack's values."""
    return any(path == recipe or path.startswith(f"{recipe}.") for recipe in _RECIPE_PATHS)


_RECIPE_PATHS: Final = (
    *(f"input.eeg.{name}" for name in EegRecipe.model_fields),
    *(f"input.raw.{name}" for name in RawRecipe.model_fields),
)
