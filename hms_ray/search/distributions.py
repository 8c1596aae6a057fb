"""A search space as Optuna's distributions, and its points as experiments."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.space import Parameter, Space
from hms_ray.config.values import chosen_value, replace_values
from hms_ray.storage.hashing import digest

Point = dict[str, Any]
"""Dotted path -> value or label of a value; Optuna's params."""


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Optuna's distribution of every searched path, in the order of the file.

    For values given as a mapping, the labels are searched.
    """
    return {path: _distribution(parameter) for path, parameter in space.parameters.items()}


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.bounds is None:
        return CategoricalDistribution(list(parameter.values or ()))
    low, high = parameter.bounds
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=parameter.log, step=int(parameter.step or 1))
    return FloatDistribution(low, high, log=parameter.log, step=parameter.step)


def resolve(space: Space, point: Mapping[str, Any]) -> Experiment:
    """The experiment at a point of the space.

    Args:
        space: search space.
        point: value or label of every searched path.

    Raises:
        ConfigError: if values that are valid alone are invalid together.
    """
    values = {path: chosen_value(space.parameters[path], chosen) for path, chosen in point.items()}
    experiment = replace_values(space.experiment, values, describe(point) or "experiment")
    weights = experiment.model.weights_file
    if weights is None:
        return experiment
    # Workers run in other folders, where a relative path would point elsewhere.
    return replace_values(experiment, {"model.weights_file": str(Path(weights).absolute())})


def trial_key(experiment: Experiment) -> str:
    """Digest that is equal for two experiments if one would repeat the other's training."""
    weights = None
    if experiment.model.weights_file is not None:
        from hms_ray.train.pretrained import weights_fingerprint

        weights = weights_fingerprint(experiment.model)
    return digest([canonical(experiment), weights])


def describe(point: Mapping[str, Any]) -> str:
    """A point as text, such as ``loss=kl learning_rate=0.00131``."""
    return " ".join(f"{path.rsplit('.', 1)[-1]}={_short(value)}" for path, value in point.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def n_points(space: Space) -> int | None:
    """Number of points of a space; None if it has a real-valued range."""
    axes = _axes(space)
    return None if axes is None else math.prod(map(len, axes))


def points(space: Space) -> Iterator[Point]:
    """Every point of a space without real-valued ranges, in a fixed order."""
    for chosen in itertools.product(*(_axes(space) or ())):
        yield dict(zip(space.parameters, chosen, strict=True))


def _axes(space: Space) -> list[Sequence[Any]] | None:
    """The values of every searched path; None if one has a real-valued range."""
    axes: list[Sequence[Any]] = []
    for distribution in distributions(space).values():
        if isinstance(distribution, CategoricalDistribution):
            axes.append(distribution.choices)
        elif isinstance(distribution, IntDistribution):
            axes.append(range(distribution.low, distribution.high + 1, distribution.step))
        else:
            return None
    return axes


def make_sampler(space: Space, draw: int) -> optuna.samplers.BaseSampler:
    """The sampler of one draw.

    Optuna's storage does not keep a sampler's random state, so every draw gets a new
    generator from (seed, number of the draw): a resumed study draws the same points as an
    uninterrupted one.

    Args:
        space: has the sampler, its seed and the number of startup trials.
        draw: number of draws before this one.
    """
    seed = int(digest([space.seed, draw])[:8], 16)
    if space.method == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed,
        multivariate=True,
        constant_liar=True,
        n_startup_trials=space.startup_trials,
    )
