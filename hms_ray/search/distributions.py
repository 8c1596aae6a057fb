"""A search space as Optuna's distributions, and its points as experiments."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from hms_ray.config.conditions import active_paths, is_active, parents_first
from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.import_path import is_import_path, source_sha256
from hms_ray.config.space import Parameter, Space
from hms_ray.config.values import chosen_value, replace_values
from hms_ray.storage.hashing import digest

Point = dict[str, Any]
"""Dotted path -> value or label of a value; Optuna's params."""


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Optuna's distribution of every searched path.

    In the order of the file, but each path after those that its conditions name. For values
    given as a mapping, the labels are searched.
    """
    return {path: _distribution(space.parameters[path]) for path in parents_first(space.parameters)}


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.bounds is None:
        return CategoricalDistribution(list(parameter.values or ()))
    low, high = parameter.bounds
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=parameter.log, step=int(parameter.step or 1))
    return FloatDistribution(low, high, log=parameter.log, step=parameter.step)


def draw(trial: optuna.Trial, space: Space) -> None:
    """Gives a new trial a value of every active parameter; parents before their conditions."""
    for path, distribution in distributions(space).items():
        if not is_active(space.parameters[path], trial.params):
            continue
        log, step = space.parameters[path].log, space.parameters[path].step
        if isinstance(distribution, CategoricalDistribution):
            trial.suggest_categorical(path, distribution.choices)
        elif isinstance(distribution, IntDistribution):
            low, high = distribution.low, distribution.high
            trial.suggest_int(path, low, high, step=int(step or 1), log=log)
        elif isinstance(distribution, FloatDistribution):
            trial.suggest_float(path, distribution.low, distribution.high, step=step, log=log)


def is_whole(space: Space, point: Mapping[str, Any]) -> bool:
    """Whether a point has a value for every active parameter, and no other."""
    return set(point) == set(active_paths(space.parameters, point))


def resolve(space: Space, point: Mapping[str, Any]) -> Experiment:
    """The experiment at a point of the space.

    Args:
        space: search space.
        point: value or label of every active path.

    Raises:
        ConfigError: if values that are valid alone are invalid together.
    """
    values = {path: chosen_value(space.parameters[path], chosen) for path, chosen in point.items()}
    experiment = replace_values(space.experiment, values, describe(point) or "experiment")
    # Workers run in other folders, where a relative path would point elsewhere.
    files = {
        path: str(Path(file).absolute())
        for path, file in experiment.model.weights_files.items()
        if file is not None
    }
    return replace_values(experiment, files) if files else experiment


def trial_key(experiment: Experiment) -> str:
    """Digest that is equal for two experiments if one would repeat the other's training."""
    weights: Any = None
    if any(experiment.model.weights_files.values()):
        from hms_ray.train.pretrained import weights_fingerprint

        found = [weights_fingerprint(encoder) for encoder in experiment.model.encoders]
        weights = found[0] if experiment.model.branches is None else found
    source = []
    if is_import_path(experiment.model.name):
        source = [source_sha256(experiment.model.name)]
    return digest([canonical(experiment), weights, *source])


def describe(point: Mapping[str, Any]) -> str:
    """A point as text, such as ``loss=kl learning_rate=0.00131``."""
    return " ".join(f"{path.rsplit('.', 1)[-1]}={_short(value)}" for path, value in point.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


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
    if space.method != "tpe":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        # Groups have been experimental since Optuna 2.8.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _tpe(space, seed)


def _tpe(space: Space, seed: int) -> optuna.samplers.TPESampler:
    return optuna.samplers.TPESampler(
        seed=seed,
        multivariate=True,
        # Conditions give trials different paths, which are then modelled in groups.
        group=any(parameter.when for parameter in space.parameters.values()),
        constant_liar=True,
        n_startup_trials=space.startup_trials,
    )
