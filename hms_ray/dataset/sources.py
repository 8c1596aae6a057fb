"""The sources and recipes that an experiment or a space uses."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from hms_ray.config.experiment import Experiment
from hms_ray.config.inputs import Recipe, in_recipe
from hms_ray.config.space import Parameter, Space
from hms_ray.config.values import parameter_values, replace_values
from hms_ray.config.views import kind_of_source
from hms_ray.errors import ConfigError
from hms_ray.pack.sources import KAGGLE, PackSource, eeg_source
from hms_ray.signal.recipes import recipe_description
from hms_ray.storage.hashing import digest


class SourceRecipe(NamedTuple):
    """A source that is read.

    Attributes:
        name: of a source, or ``SOURCE.NAME``.
        recipe: None for kaggle, which has none.
        label_rows: whether windows of label rows are read too, and not of training rows alone.
    """

    name: str
    recipe: Recipe
    label_rows: bool = False


WINDOW_COLUMNS = {
    "kaggle": ("spectrogram_id", "spectrogram_start"),
    "eeg": ("eeg_id", "eeg_start"),
    "pairs": ("eeg_id", "eeg_start"),
    "raw": ("eeg_id", "eeg_start"),
}
"""Source -> columns of a row with its window: recording and start."""


LABEL_WINDOWS = "-labels"
"""End of the key of a pack that has windows of label rows too."""


def source_key(name: str, recipe: Recipe, label_rows: bool = False) -> str:
    """Short name of a source and recipe, such as ``eeg-3f2a91c0d4e5``.

    Args:
        name: see ``SourceRecipe``.
        recipe: likewise.
        label_rows: likewise; recordings are packed whole in any case.
    """
    if recipe is None:
        return name
    key = f"{kind_of_source(name)}-{digest(recipe_description(recipe))[:12]}"
    return key + LABEL_WINDOWS if label_rows else key


def experiment_sources(experiment: Experiment) -> list[SourceRecipe]:
    """The sources that an experiment reads."""
    label_rows = experiment.training.draws_label_rows
    return [SourceRecipe(*used, label_rows) for used in experiment.sources.items()]


def pack_source(name: str, recipe: Recipe, label_rows: bool = False) -> PackSource:
    """How the values of a source are made; ``label_rows`` changes none of them."""
    return KAGGLE if recipe is None else eeg_source(kind_of_source(name), recipe)


def sources_for(space: Space) -> list[SourceRecipe]:
    """Every source and recipe that a point of a space can use, without duplicates.

    Combines the searched values of views and recipes; invalid combinations are skipped, as
    in the search.
    """
    searched = {path: space.parameters[path] for path in space.parameters if _decides_sources(path)}
    found: dict[tuple[str, bool], SourceRecipe] = {}
    for chosen in itertools.product(*(_options(path, p) for path, p in searched.items())):
        try:
            values = {path: value for one in chosen for path, value in one.items()}
            experiment = replace_values(space.experiment, values)
        except ConfigError:
            continue
        for source in experiment_sources(experiment):
            found.setdefault((source_key(*source), source.label_rows), source)
    return list(found.values())


def _options(path: str, parameter: Parameter) -> list[dict[str, Any]]:
    """Each value of a path; also none, if its conditions can make it inactive."""
    values = parameter_values(parameter).values()
    return [{path: value} for value in values] + ([{}] if parameter.when else [])


def _decides_sources(path: str) -> bool:
    if path in ("training", "training.stages") or path.endswith("label_rows"):
        return True
    whole = ("input", "input.eeg", "input.pairs", "input.raw")
    named = path.startswith("input.recipes") and path.count(".") < 4
    views = path.startswith(("input.views", "model.branches")) or path == "model"
    return in_recipe(path) or path in whole or named or views
