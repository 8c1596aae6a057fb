"""What to search: an experiment, its free values, the study around them, its resources."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hms_ray.config.eeg_recipes import Count, Frozen, Positive
from hms_ray.config.experiment import Experiment

Objective = Literal["kl_all", "kl_4", "kl_10"]
Scalar = bool | int | float | str | None


class Parameter(Frozen):
    """One searched value: exactly one of ``choices``, ``int`` and ``float``."""

    choices: list[Any] | dict[str, Any] | None = None
    """Values to choose from; as a mapping, labels for values of any shape."""
    int_: Annotated[tuple[int, int] | None, Field(alias="int")] = None
    """Smallest and largest whole number."""
    float_: Annotated[tuple[float, float] | None, Field(alias="float")] = None
    """Smallest and largest number."""
    log: bool = False
    """Search on a logarithmic scale."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in (self.choices, self.int_, self.float_) if kind is not None]
        if len(given) != 1:
            raise ValueError("a parameter needs exactly one of choices, int and float")
        if self.choices is not None:
            if not self.choices:
                raise ValueError("choices must not be empty")
            if self.log:
                raise ValueError("log belongs to int and float, not to choices")
            if isinstance(self.choices, list) and any(
                isinstance(value, (list, dict)) for value in self.choices
            ):
                raise ValueError("choices that are lists or mappings need labels: {label: value}")
        bounds = self.int_ or self.float_
        if bounds is not None and not bounds[0] < bounds[1]:
            raise ValueError("the first bound must be smaller than the second")
        if bounds is not None and self.log and bounds[0] <= 0:
            raise ValueError("log needs bounds above 0")
        return self


class StudyConfig(Frozen):
    """What a study searches for and how long."""

    objective: Objective = "kl_10"
    """Out-of-fold KL on all rows, on rows of >= 4, or of >= 10 votes."""
    n_trials: Count = 20
    """Finished trials that the study ends with."""
    sampler: Literal["tpe", "random"] = "tpe"
    """Optuna's sampler; TPE is multivariate."""
    startup_trials: Count = 5
    """Random trials before TPE models the space."""
    seed: int = 0
    """Seed of the sampler."""


class ResourcesConfig(Frozen):
    """What a trial may use; changes where things run, not what comes out."""

    workers: Count = 1
    """Workers of a group; the world size is part of a result's key."""
    cpus_per_worker: Positive = 1
    """Logical CPUs a worker; also its number of torch threads."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    """GPUs a worker: a whole number or a share of one; 0 trains on the CPU."""
    group: Literal["fold", "trial"] = "fold"
    """One worker group a fold, or one kept for all folds of a trial."""
    share_stages: bool = True
    """Take a fold's first stages from the store where an experiment that agrees so far has
    trained them, and keep finished stages there for others."""
    max_concurrent_trials: Count | None = None
    """Upper bound; the cluster's size bounds it too."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """Restarts of a worker group after a lost worker or node."""
    health_check_interval_s: Positive = 2.0
    """How often Ray Train looks after its workers; small values start faster."""
    start_timeout_s: Positive = 60.0
    """How long Ray Train waits for a group's workers before it tries again."""

    @model_validator(mode="after")
    def _gpus_are_whole_or_a_share(self) -> Self:
        if self.gpus_per_worker > 1 and not self.gpus_per_worker.is_integer():
            raise ValueError(
                "gpus_per_worker must be a whole number or a share of one GPU, "
                f"got {self.gpus_per_worker:g}"
            )
        return self


class Space(Frozen):
    """A search space: an experiment and what is searched around it."""

    experiment: Experiment = Experiment()
    search: dict[str, Parameter] = Field(default_factory=dict)
    """Dotted path into the experiment -> parameter."""
    start: list[dict[str, Any]] = Field(default_factory=list)
    """Points to try first: dotted path -> value or label."""
    study: StudyConfig = StudyConfig()
    resources: ResourcesConfig = ResourcesConfig()

    def alone(self) -> Space:
        """The experiment by itself: nothing searched, one trial."""
        study = self.study.model_copy(update={"n_trials": 1})
        return self.model_copy(update={"search": {}, "start": [], "study": study})
