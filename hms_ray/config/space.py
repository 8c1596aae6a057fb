"""A search space: an experiment, its searched values, the study and its resources."""

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
    """Values to choose from: a list, or a mapping of labels to values of any shape."""
    int_: Annotated[tuple[int, int] | None, Field(alias="int")] = None
    """Smallest and largest integer, both included."""
    float_: Annotated[tuple[float, float] | None, Field(alias="float")] = None
    """Smallest and largest number, both included."""
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
    """What a study minimises, how, and for how many trials."""

    objective: Objective = "kl_10"
    """Score to minimise: out-of-fold KL on all rows, or on rows with >= 4 or >= 10 votes."""
    n_trials: Count = 20
    """Number of finished trials after which the study ends."""
    sampler: Literal["tpe", "random"] = "tpe"
    """Sampler of Optuna: multivariate TPE, or random search."""
    startup_trials: Count = 5
    """Random trials before TPE starts."""
    seed: int = 0
    """Seed of the sampler."""


class ResourcesConfig(Frozen):
    """Resources of a trial. Only the number of workers and the device change results."""

    workers: Count = 1
    """Workers per group (world size); part of the cache key."""
    cpus_per_worker: Positive = 1
    """Logical CPUs per worker, and its number of torch threads."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    """GPUs per worker: a whole number, or a fraction of one GPU; 0 trains on the CPU."""
    group: Literal["fold", "trial"] = "fold"
    """Start a worker group per fold, or one group for all folds of a trial."""
    share_stages: bool = True
    """Reuse the first stages of a fold from the fold store if the same first stages
    were trained before, and store finished stages for other trials."""
    windows: Literal["auto", "resident", "streamed"] = "auto"
    """Where training reads windows of recordings from: a copy of the packs on the GPU
    (``resident``), or each batch from the machine's memory (``streamed``). ``auto``: resident
    if the packs take at most 40% of the GPU's free memory."""
    max_concurrent_trials: Count | None = None
    """Largest number of trials that run at once. Default: as many as fit on the cluster."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """Restarts of a worker group after a worker or node is lost."""
    health_check_interval_s: Positive = 2.0
    """Seconds between Ray Train's checks of its workers; small values start faster."""
    start_timeout_s: Positive = 60.0
    """Seconds that Ray Train waits for the workers of a group before it tries again."""

    @property
    def device_class(self) -> Literal["cpu", "cuda"]:
        """Kind of device that trains."""
        return "cuda" if self.gpus_per_worker > 0 else "cpu"

    @model_validator(mode="after")
    def _gpus_are_whole_or_a_share(self) -> Self:
        if self.gpus_per_worker > 1 and not self.gpus_per_worker.is_integer():
            raise ValueError(
                "gpus_per_worker must be a whole number or a fraction of one GPU, "
                f"got {self.gpus_per_worker:g}"
            )
        return self


class Space(Frozen):
    """An experiment, and which of its values are searched and how."""

    experiment: Experiment = Experiment()
    search: dict[str, Parameter] = Field(default_factory=dict)
    """Dotted path into the experiment -> values to search."""
    start: list[dict[str, Any]] = Field(default_factory=list)
    """Points to try first, each with a value or label for every searched path."""
    study: StudyConfig = StudyConfig()
    resources: ResourcesConfig = ResourcesConfig()

    def alone(self) -> Space:
        """The experiment alone: nothing searched, one trial."""
        study = self.study.model_copy(update={"n_trials": 1})
        return self.model_copy(update={"search": {}, "start": [], "study": study})
