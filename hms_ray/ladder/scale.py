"""One overlay that makes every experiment of a ladder smaller (or larger) the same way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from hms_ray.config.eeg_recipes import Count, Frozen, Positive
from hms_ray.config.experiment import Experiment
from hms_ray.config.loading import (
    apply_setting,
    read_mapping,
    replace_values,
    validate_space,
)
from hms_ray.config.space import ResourcesConfig, Space
from hms_ray.config.validation import validated
from hms_ray.errors import ConfigError


class Scale(Frozen):
    """What an overlay changes; everything else stays as an experiment's file has it."""

    models: dict[str, str] = Field(default_factory=dict)
    """Model of a file -> model in its place; where given, every file's must be here."""
    learning_rate_factor: Positive = 1.0
    """Of the learning rate of training, and of each stage that has its own."""
    size: tuple[Count, Count] | None = None
    """In place of ``input.size`` where a file has one."""
    height: Count | None = None
    """In place of ``input.height`` where a file has one."""
    values: dict[str, Any] = Field(default_factory=dict)
    """Dotted path into the experiment -> value, in every experiment."""
    resources: ResourcesConfig | None = None
    """Of a worker group; the files' own where absent."""


def read_scale(path: str | Path) -> Scale:
    """Reads an overlay.

    Raises:
        ConfigError: where the file cannot be read or breaks a rule.
    """
    return validated(Scale, read_mapping(path), path)


def scaled(space: Space, scale: Scale, where: object) -> Space:
    """An experiment's space with an overlay put over it.

    Args:
        space: as its file has it.
        scale: the overlay.
        where: the file, for messages.

    Raises:
        ConfigError: a model that the overlay does not know, a path or value that the
            experiment does not take.
    """
    experiment = space.experiment
    values = dict(scale.values)
    if scale.models:
        if experiment.model.name not in scale.models:
            raise ConfigError(
                "the overlay must name a model for every model of the ladder",
                got=experiment.model.name,
                where=where,
                fix=f"It has {', '.join(scale.models)}: add the model under models.",
            )
        values["model.name"] = scale.models[experiment.model.name]
    values |= _learning_rates(experiment, scale.learning_rate_factor)
    if scale.size is not None and experiment.input.size is not None:
        values["input.size"] = list(scale.size)
    if scale.height is not None and experiment.input.height is not None:
        values["input.height"] = scale.height
    changed = replace_values(experiment, values, f"the overlay on {where}")
    return space.model_copy(
        update={"experiment": changed, "resources": scale.resources or space.resources}
    )


def _learning_rates(experiment: Experiment, factor: float) -> dict[str, float]:
    training = experiment.training
    rates = {"training.learning_rate": training.learning_rate * factor}
    for number, stage in enumerate(training.stages):
        if stage.learning_rate is not None:
            rates[f"training.stages.{number}.learning_rate"] = stage.learning_rate * factor
    return rates


def with_settings(space: Space, settings: Sequence[str], where: object) -> Space:
    """A space with ``--set`` applied, after whatever an overlay did.

    Raises:
        ConfigError: as ``load_space``.
    """
    if not settings:
        return space
    data = space.model_dump(mode="json", by_alias=True)
    for setting in settings:
        apply_setting(data, setting)
    return validate_space(data, where)
