"""What would fail in every worker, found once before any of them is started."""

from __future__ import annotations

from collections.abc import Iterator

from hms_ray.config import Experiment, Space
from hms_ray.config_file import parameter_values, replace_values
from hms_ray.errors import ConfigError
from hms_ray.model import build_model
from hms_ray.pack.store import open_pack
from hms_ray.prepare import Prepared
from hms_ray.train.stages import stage_rows
from hms_ray.views import image_size


def preflight(space: Space, prepared: Prepared) -> None:
    """Builds the models of a space once and makes sure that every stage has rows.

    Looked at are the experiment itself and every searched value on its own;
    combinations of searched values are not.

    Args:
        space: what is going to be trained.
        prepared: its rows and pack.

    Raises:
        ModelError: a model or its weights cannot be had.
        ConfigError: blocks of ``input.pool`` do not divide the images.
        TrainingError: a stage would have no rows in some fold.
    """
    pack = open_pack(prepared.pack_path)
    rows = prepared.rows()
    votes, folds = rows["total_votes"].to_numpy(), rows["fold"].to_numpy()
    built = set()
    staged = set()
    for experiment in _variants(space):
        size = image_size(experiment.input, len(pack.panels), pack.n_frequencies, pack.window)
        if (experiment.model, size) not in built:
            build_model(experiment.model, size)
            built.add((experiment.model, size))
        for stage in experiment.training.resolved_stages():
            rule = (stage.rows, stage.threshold)
            if rule not in staged:
                for fold in range(prepared.n_folds):
                    stage_rows(stage, votes[folds != fold])
                staged.add(rule)


def _variants(space: Space) -> Iterator[Experiment]:
    yield space.experiment
    for path, parameter in space.search.items():
        for value in parameter_values(parameter).values():
            try:
                yield replace_values(space.experiment, {path: value})
            except ConfigError:
                # Only together with another searched value does it make sense.
                continue
