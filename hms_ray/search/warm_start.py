"""Finished trials of earlier studies as knowledge of the sampler."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hms_ray.config.conditions import is_active, parents_first
from hms_ray.config.experiment import Experiment
from hms_ray.config.space import Space
from hms_ray.config.values import own_value
from hms_ray.errors import ConfigError
from hms_ray.search.distributions import Point, resolve, trial_key
from hms_ray.study.folder import StudyFolder

ORIGIN: Final = "warm start"
"""Beginning of the origin of trials that another study has trained."""


@dataclass(frozen=True)
class KnownTrial:
    """A finished trial of another study.

    Attributes:
        origin: names study and trial.
        point: where it lies in this space.
        scores: ``kl_all``, ``kl_4``, ``kl_10``.
    """

    origin: str
    point: Point
    scores: dict[str, float | None]


def point_of(space: Space, experiment: Experiment) -> Point | None:
    """The point of a space that trains the same as an experiment; None if there is none."""
    point: Point = {}
    for path in parents_first(space.parameters):
        parameter = space.parameters[path]
        if is_active(parameter, point):
            own = own_value(parameter, experiment, path)
            if not own:
                return None
            point[path] = own[0]
    try:
        same = trial_key(resolve(space, point)) == trial_key(experiment)
    except ConfigError:
        return None
    return point if same else None


def known_trials(space: Space, studies: Sequence[StudyFolder]) -> list[KnownTrial]:
    """The finished trials of other studies that lie in a space and have its score."""
    found = []
    for study in studies:
        for trial in sorted(study.finished_trials(), key=lambda one: one.number):
            score = trial.scores.get(space.objective)
            point = point_of(space, trial.experiment)
            if point is not None and score is not None and math.isfinite(score):
                origin = f"{ORIGIN}: {study.name}/{trial.number:04d}"
                found.append(KnownTrial(origin, point, trial.scores))
    return found
