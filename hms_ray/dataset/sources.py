"""The sources and recipes that an experiment or a space uses."""

from __future__ import annotations

import itertools
from typing import Any

from hms_ray.config.inputs import Recipe, in_recipe, used_sources
from hms_ray.config.space import Parameter, Space
from hms_ray.config.values import parameter_values, replace_values
from hms_ray.config.views import kind_of_source
from hms_ray.errors import ConfigError
from hms_ray.pack.sources import KAGGLE, PackSource, eeg_source
from hms_ray.signal.recipes import recipe_description
from hms_ray.storage.hashing import digest

SourceRecipe = tuple[str, Recipe]
"""Name of a source, or ``SOURCE.NAME``, and its recipe; None for kaggle, which has none."""

WINDOW_COLUMNS = {
    "kaggle": ("spectrogram_id", "spectrogram_start"),
    "eeg": ("eeg_id", "eeg_start"),
    "pairs": ("eeg_id", "eeg_start"),
    "raw": ("eeg_id", "eeg_start"),
}
"""Source -> columns of a row with its window: recording and start."""


def source_key(name: str, recipe: Recipe) -> str:
    """Short name of a source and recipe, such as ``eeg-3f2a91c0d4e5``."""
    if recipe is None:
        return name
    return f"{kind_of_source(name)}-{digest(recipe_description(recipe))[:12]}"


def pack_source(name: str, recipe: Recipe) -> PackSource:
    """How the pack of a source is made."""
    return KAGGLE if recipe is None else eeg_source(kind_of_source(name), recipe)


def sources_for(space: Space) -> list[SourceRecipe]:
    """Every source and recipe that a point of a space can use, without duplicates.

    Combines the searched values of views and recipes; invalid combinations are skipped, as
    in the search.
    """
    searched = {path: space.parameters[path] for path in space.parameters if _decides_sources(path)}
    found: dict[str, SourceRecipe] = {}
    for chosen in itertools.product(*(_options(path, p) for path, p in searched.items())):
        try:
            values = {path: value for one in chosen for path, value in one.items()}
            experiment = replace_values(space.experiment, values)
        except ConfigError:
            continue
        for name, recipe in used_sources(experiment.input).items():
            found.setdefault(source_key(name, recipe), (name, recipe))
    return list(found.values())


def _options(path: str, parameter: Parameter) -> list[dict[str, Any]]:
    """Each value of a path; also none, if its conditions can make it inactive."""
    values = parameter_values(parameter).values()
    return [{path: value} for value in values] + ([{}] if parameter.when else [])


def _decides_sources(path: str) -> bool:
    whole = ("input", "input.eeg", "input.pairs", "input.raw")
    named = path.startswith("input.recipes") and path.count(".") < 4
    return in_recipe(path) or path in whole or named or path.startswith("input.views")
