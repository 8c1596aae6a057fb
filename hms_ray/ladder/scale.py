"""An overlay that scales every experiment of a ladder in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, cast

from pydantic import Field

from hms_ray.config.branches import BranchConfig
from hms_ray.config.eeg_recipes import Count, Frozen, Positive
from hms_ray.config.experiment import Experiment
from hms_ray.config.inputs import InputConfig, RawConfig, source_path, used_sources
from hms_ray.config.loading import parsed_setting, validate_space
from hms_ray.config.space import ResourcesConfig, Space
from hms_ray.config.validation import validated
from hms_ray.config.values import replace_values, set_path
from hms_ray.config.views import kind_of_source
from hms_ray.config.yaml_files import read_mapping
from hms_ray.dataset.sources import pack_source
from hms_ray.errors import ConfigError

SourceName = Literal["kaggle", "eeg", "pairs", "raw"]


class Scale(Frozen):
    """Changes of an overlay to every experiment."""

    models: dict[str, str] = Field(default_factory=dict)
    """Model -> its replacement; if given, every model of the ladder must be a key."""
    learning_rate_factor: Positive = 1.0
    """Factor on the learning rate of training, and on that of each stage."""
    learning_rate: Positive | None = None
    """Replaces the learning rate of training; rates of stages keep their ratio to it. Default:
    by the factor."""
    size: tuple[Count, Count] | None = None
    """Replaces ``input.size`` if an experiment has one."""
    height: Count | None = None
    """Replaces ``input.height`` if an experiment has one."""
    largest: dict[SourceName, tuple[Count, Count]] = Field(default_factory=dict)
    """Source -> most frequencies and times of its windows, also of its named recipes, which are
    averaged over the smallest blocks that reach this. Where blocks do not divide the frames of
    ``pairs``, frames at both ends are skipped."""
    values: dict[str, Any] = Field(default_factory=dict)
    """Dotted path into the experiment -> value, in every experiment."""
    resources: ResourcesConfig | None = None
    """Of a worker group. Default: as in the experiment."""


def read_scale(path: str | Path) -> Scale:
    """Reads an overlay.

    Raises:
        ConfigError: if the file cannot be read or breaks a rule.
    """
    return validated(Scale, read_mapping(path), path)


def adapted(space: Space, overlay: Scale | None, settings: Sequence[str], where: object) -> Space:
    """A space with an overlay and then the texts ``a.b=value`` of ``--set`` applied.

    Values such as ``model.weights_file`` are set in each branch of a model that has some.

    Raises:
        ConfigError: see ``scaled`` and ``load_space``.
    """
    if overlay is not None:
        space = scaled(space, overlay, where)
    if not settings:
        return space
    data = space.model_dump(mode="json")
    for setting in settings:
        path, value = parsed_setting(setting)
        if path.startswith(_EXPERIMENT):
            given = {path.removeprefix(_EXPERIMENT): value}
            for place, one in _for_each_branch(space.experiment, given).items():
                set_path(data, _EXPERIMENT + place, one)
        else:
            set_path(data, path, value)
    return validate_space(data, where)


_EXPERIMENT: Final = "experiment."


def scaled(space: Space, scale: Scale, where: object) -> Space:
    """An experiment's space with an overlay applied; ``where`` is its file, for messages.

    Raises:
        ConfigError: for a model that the overlay does not have, or a path or value that
            the experiment does not accept.
    """
    experiment = space.experiment
    values = dict(scale.values)
    for place, encoder in zip(_places(experiment), experiment.model.encoders, strict=True):
        if not scale.models:
            break
        if encoder.name not in scale.models:
            raise ConfigError(
                "the overlay must have every model of the ladder",
                got=encoder.name,
                where=where,
                fix="Add it under models.",
            )
        values[f"{place}.name"] = scale.models[encoder.name]
    factor = scale.learning_rate_factor
    if scale.learning_rate is not None:
        factor = scale.learning_rate / experiment.training.learning_rate
    values |= _learning_rates(experiment, factor)
    values |= _downsampled(experiment.joint_input, scale.largest)
    for place, image in zip(_places(experiment, "input"), experiment.image_inputs, strict=True):
        if scale.size is not None and image.size is not None:
            values[f"{place}.size"] = list(scale.size)
        if scale.height is not None and image.height is not None:
            values[f"{place}.height"] = scale.height
    values = _for_each_branch(experiment, values)
    changed = replace_values(experiment, values, f"the overlay on {where}")
    return space.model_copy(
        update={"experiment": changed, "resources": scale.resources or space.resources}
    )


def _downsampled(
    config: InputConfig, largest: Mapping[SourceName, tuple[int, int]]
) -> dict[str, Any]:
    """Dotted path -> value that makes the windows of all sources in use small enough."""
    values: dict[str, Any] = {}
    for source, recipe in used_sources(config).items():
        kind = cast("SourceName", kind_of_source(source))
        if kind not in largest:
            continue
        made, (high, long) = pack_source(source, recipe), largest[kind]
        place = source_path(source)
        signals = config.source_config(source) if kind == "raw" else None
        rows = signals.rows if isinstance(signals, RawConfig) else 1
        block = -(-made.window // long)
        if kind == "pairs":
            values[f"{place}.n_frames"] = made.window // block * block
        else:
            block = _divisor(made.window, long, rows)
        values[f"{place}.downsample"] = [_divisor(made.n_frequencies, high), block]
    return values


def _divisor(n: int, most: int, of: int = 1) -> int:
    """The smallest block that divides ``n`` into at most ``most`` parts, a multiple of ``of``."""
    return next(
        block
        for block in range(1, n + 1)
        if n % block == 0 and (n // block % of == 0 or block == n) and n // block <= most
    )


def _places(experiment: Experiment, alone: str = "model") -> list[str]:
    """Dotted paths of what has the values of a model, or of its image; of branches, both."""
    branches = experiment.model.branches
    return [alone] if branches is None else [f"model.branches.{n}" for n in range(len(branches))]


def _for_each_branch(experiment: Experiment, values: dict[str, Any]) -> dict[str, Any]:
    """Values such as ``model.pretrained`` and ``input.pad``, set in each branch that there is."""
    if experiment.model.branches is None:
        return values
    found: dict[str, Any] = {}
    for path, value in values.items():
        room, _, field = path.rpartition(".")
        if room in ("model", "input") and field in BranchConfig.model_fields:
            found |= {f"{place}.{field}": value for place in _places(experiment)}
            if field == "pretrained" and not value:
                # Encoders without trained weights cannot stay as they are.
                found |= {f"{place}.frozen": False for place in _places(experiment)}
        else:
            found[path] = value
    return found


def _learning_rates(experiment: Experiment, factor: float) -> dict[str, float]:
    training = experiment.training
    rates = {"training.learning_rate": training.learning_rate * factor}
    for number, stage in enumerate(training.stages):
        if stage.learning_rate is not None:
            rates[f"training.stages.{number}.learning_rate"] = stage.learning_rate * factor
    return rates
