"""Checks that would fail in every worker, made once before recordings are packed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd

from hms_ray.augment.mosaic import mosaic_spans
from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.experiment import Experiment
from hms_ray.config.import_path import is_import_path
from hms_ray.config.inputs import InputConfig, used_sources
from hms_ray.config.space import Space
from hms_ray.config.values import parameter_values, replace_values
from hms_ray.dataset.sources import pack_source
from hms_ray.errors import ConfigError
from hms_ray.experiment.placement import DeviceClass, require_precision, require_sync_batchnorm
from hms_ray.train.imported_model import check_imported
from hms_ray.train.model import build_model
from hms_ray.train.model_images import ImageSizes, each_size
from hms_ray.train.parameter_groups import parameter_groups
from hms_ray.train.stage_rows import check_expert_head, check_stages
from hms_ray.transforms.views import Shape, image_size, joined_size, view_widths


def preflight(
    space: Space, rows: pd.DataFrame, device_class: DeviceClass | None = None, workers: int = 1
) -> None:
    """Builds every model of a space once and checks that every stage has rows.

    Checks the experiment itself and every searched value alone, not combinations of
    searched values.

    Args:
        space: what will be trained.
        rows: training rows with their folds, see ``dataset.prepare.RowsCheck``.
        device_class: where it will be trained, if that is known.
        workers: of a worker group.

    Raises:
        ModelError: if a model cannot be built or its weights cannot be read.
        ConfigError: if blocks do not divide the images, a view has too few columns for a
            mosaic, a stage lacks rows in a fold, the head that predicts would not be trained, or
            the device lacks the precision.
    """
    variants = list(single_changes(space))
    stages = [stage for made in variants for stage in made.training.resolved_stages()]
    labels = [rows["total_votes"].to_numpy(), rows[list(TARGET_COLUMNS)].to_numpy()]
    labels.append(rows["fold"].to_numpy())
    check_stages(stages, *labels)
    for experiment in variants:
        if experiment.model.head == "per_tier":
            check_expert_head(experiment.training.resolved_stages(), *labels)
    built = set()
    for experiment in variants:
        if device_class is not None:
            require_precision(experiment.training.precision, device_class)
            require_sync_batchnorm(experiment.training.sync_batchnorm, device_class, workers)
        sizes = image_sizes_of(experiment)
        training = experiment.training
        channels = experiment.input.channels
        needs = experiment.model, sizes, channels, training.head_rate, training.layer_decay
        if needs not in built:
            build = partial(build_model, experiment.model, sizes, channels)
            parameter_groups(build(), training)
            if is_import_path(experiment.model.name):
                (size,) = each_size(sizes)
                check_imported(build, experiment.model.name, (channels, *size), workers)
            built.add(needs)
        for stage in experiment.training.resolved_stages():
            if stage.augment.mosaic is not None:
                shapes = _shapes(experiment.input)
                _, width = joined_size(experiment.input, shapes)
                mosaic_spans(width, view_widths(experiment.input, shapes))


def require_folds(wanted: Sequence[int], rows: pd.DataFrame) -> None:
    """Checks that folds exist.

    Raises:
        ConfigError: if one does not.
    """
    last = int(rows["fold"].max())
    for fold in wanted:
        if not 0 <= fold <= last:
            raise ConfigError(
                f"a fold must be from 0 to {last}",
                got=fold,
                fix="Name another fold, or change data.n_folds.",
            )


def image_size_of(config: InputConfig) -> tuple[int, int]:
    """Height and width of the images of an input; needs no packs.

    Raises:
        ConfigError: see ``image_size``.
    """
    return image_size(config, _shapes(config))


def image_sizes_of(experiment: Experiment) -> ImageSizes:
    """``image_size_of`` the image of an experiment, or of the image of each branch."""
    if experiment.model.branches is None:
        return image_size_of(experiment.input)
    return tuple(image_size_of(one) for one in experiment.branch_inputs)


def _shapes(config: InputConfig) -> dict[str, Shape]:
    """Shapes of windows by recipe, since not every checked value is packed."""
    forms = {name: pack_source(name, recipe) for name, recipe in used_sources(config).items()}
    return {
        name: (len(form.panels), form.n_frequencies, form.window) for name, form in forms.items()
    }


def single_changes(space: Space) -> Iterator[Experiment]:
    """The experiment of a space, and that with each searched value alone if it is valid."""
    yield space.experiment
    for path, parameter in space.parameters.items():
        for value in parameter_values(parameter).values():
            try:
                yield replace_values(space.experiment, {path: value})
            except ConfigError:
                # Valid only together with another searched value.
                continue
