"""A search space as Optuna's distributions, and its points as experiments."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from hms_ray.config.experiment import Experiment
from hms_ray.config.loading import chosen_value, replace_values
from hms_ray.config.space import Parameter, Space
from hms_ray.experiment.cache_key import experiment_key
from hms_ray.storage.hashing import digest

Point = dict[str, Any]
"""Dotted path -> value or label of a value; Optuna's params."""


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Optuna's distribution of every searched path, in the order of the file.

    For choices given as a mapping, the labels are searched.
    """
    return {path: _distribution(parameter) for path, parameter in space.search.items()}


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.int_ is not None:
        return IntDistribution(*parameter.int_, log=parameter.log)
    if parameter.float_ is not None:
        return FloatDistribution(*parameter.float_, log=parameter.log)
    return CategoricalDistribution(list(parameter.choices or ()))


def resolve(space: Space, point: Mapping[str, Any]) -> Experiment:
    """The experiment at a point of the space.

    Args:
        space: search space.
        point: value or label of every searched path.

    Raises:
        ConfigError: if values that are valid alone are invalid together.
    """
    values = {path: chosen_value(space.search[path], chosen) for path, chosen in point.items()}
    experiment = replace_values(space.experiment, values, describe(point) or "experiment")
    weights = experiment.model.weights_file
    if weights is None:
        return experiment
    # Workers run in other folders, where a relative path would point elsewhere.
    return replace_values(experiment, {"model.weights_file": str(Path(weights).absolute())})


def trial_key(experiment: Experiment) -> str:
    """Digest that is equal for two experiments if one would repeat the other's training.

    Unlike ``experiment_key`` it includes the content of a file of pretrained weights.
    """
    if experiment.model.weights_file is None:
        return experiment_key(experiment)
    from hms_ray.train.model import weights_fingerprint

    return digest([experiment_key(experiment), weights_fingerprint(experiment.model)])


def describe(point: Mapping[str, Any]) -> str:
    """A point as text, such as ``loss=kl learning_rate=0.00131``."""
    return " ".join(f"{path.rsplit('.', 1)[-1]}={_short(value)}" for path, value in point.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def n_points(space: Space) -> int | None:
    """Number of points of a space; None if it has a real-valued range."""
    count = 1
    for distribution in distributions(space).values():
        if isinstance(distribution, CategoricalDistribution):
            count *= len(distribution.choices)
        elif isinstance(distribution, IntDistribution):
            count *= len(_whole_numbers(distribution))
        else:
            return None
    return count


def points(space: Space) -> Iterator[Point]:
    """Every point of a space without real-valued ranges, in a fixed order."""
    axes = [
        list(distribution.choices)
        if isinstance(distribution, CategoricalDistribution)
        else list(_whole_numbers(distribution))
        for distribution in distributions(space).values()
        if isinstance(distribution, (CategoricalDistribution, IntDistribution))
    ]
    for chosen in itertools.product(*axes):
        yield dict(zip(space.search, chosen, strict=True))


def _whole_numbers(distribution: IntDistribution) -> range:
    return range(distribution.low, distribution.high + 1)


def make_sampler(space: Space, draw: int) -> optuna.samplers.BaseSampler:
    """The sampler of one draw.

    Optuna's storage does not keep a sampler's random state, so every draw gets a new
    generator from (seed, number of the draw): a resumed study draws the same points as an
    uninterrupted one.

    Args:
        space: has the sampler, its seed and the number of startup trials.
        draw: number of draws before this one.
    """
    seed = int(digest([space.study.seed, draw])[:8], 16)
    if space.study.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed,
        multivariate=True,
        constant_liar=True,
        n_startup_trials=space.study.startup_trials,
    )
