"""A search space: an experiment, its searched values, how they are searched, resources."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StrictFloat, StrictInt, field_validator, model_validator

from hms_ray.config.eeg_recipes import Count, Frozen, Positive
from hms_ray.config.experiment import Experiment
from hms_ray.config.gain import GainConfig, Objective
from hms_ray.config.pruning import NO_PRUNING, PruneConfig

__all__ = ["Objective"]

BLEND_GAIN: Final = "blend_gain"
Metric = Objective | Literal["blend_gain"]
Number = StrictInt | StrictFloat
CHECKPOINT_EVERY_S: Final = 60.0


class Parameter(Frozen):
    """One searched value: either ``values``, or a range from ``min`` to ``max``."""

    values: list[Any] | dict[str, Any] | None = None
    """Values to choose from: a list, or a mapping of labels to values of any shape."""
    min: Number | None = None
    """Smallest number of a range, included."""
    max: Number | None = None
    """Largest number of a range, included. A range holds integers if the field that it
    sets is an integer, else real numbers."""
    log: bool = False
    """Search the range on a logarithmic scale."""
    step: Number | None = None
    """Distance between the numbers of a range; it must divide ``max - min``. Default: every
    integer, or any real number."""
    when: dict[str, Any] = Field(default_factory=dict)
    """Conditions: path of another parameter -> its value or label, or a list of them. Unless
    all are met, the parameter is inactive: not searched, and the experiment's own value is
    used."""

    @property
    def bounds(self) -> tuple[int, int] | tuple[float, float] | None:
        """``(min, max)`` of a range: two integers or two floats; None for values."""
        if self.min is None or self.max is None:
            return None
        if isinstance(self.min, int) and isinstance(self.max, int):
            return self.min, self.max
        return float(self.min), float(self.max)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.values is not None:
            if {self.min, self.max, self.step} != {None} or self.log:
                raise ValueError("a parameter needs either values, or min and max")
            if not self.values:
                raise ValueError("values must not be empty")
            if isinstance(self.values, list) and any(
                isinstance(value, (list, dict)) for value in self.values
            ):
                raise ValueError("values that are lists or mappings need labels: {label: value}")
            return self
        if self.min is None or self.max is None:
            raise ValueError("a parameter needs either values, or min and max")
        if not self.min < self.max:
            raise ValueError("min must be smaller than max")
        if self.log and self.min <= 0:
            raise ValueError("log needs a min above 0")
        if self.step is not None:
            self._check_step(self.max - self.min, self.step)
        return self

    def _check_step(self, width: float, step: float) -> None:
        if step <= 0:
            raise ValueError("step must be above 0")
        if self.log:
            raise ValueError("step and log exclude each other")
        n_steps = width / step
        if abs(n_steps - round(n_steps)) > 1e-9 * n_steps:
            raise ValueError(
                f"max - min must be a multiple of step, got {width:g} and a step of {step:g}"
            )


class BudgetConfig(Frozen):
    """When a study ends: at the first limit that is reached; running trials are finished.

    The same command with a larger budget continues it.
    """

    trials: Count = 20
    """Number of finished trials; for a grid, the default is all of its points."""
    hours: Positive | None = None
    """Wall hours of all runs of the study. Default: no limit."""
    device_hours: Positive | None = None
    """Hours of training times the GPUs (without any: the CPUs) of a worker group, over all
    runs. Default: no limit."""


class ResourcesConfig(Frozen):
    """Resources of a trial. Only the number of workers and the device change results."""

    workers: Count = 1
    """Workers per group (world size); part of the cache key."""
    cpus_per_worker: Positive = 1
    """Logical CPUs per worker, and its number of torch threads."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    """GPUs per worker: a whole number, or a fraction of one GPU; 0 trains on the CPU."""
    group: Literal["study", "fold"] = "study"
    """``study``: worker groups stay and train one fold after another, of any trial. ``fold``:
    a new worker group per fold, which costs about 10 s more. The results are the same."""
    max_groups: Count | None = None
    """Largest number of worker groups at once. Default: as many as fit on the cluster."""
    group_idle_s: Positive = 120.0
    """Seconds after which a worker group without a fold to train is given back."""
    autoscale: bool = False
    """Request worker groups that do not fit on the cluster yet, and wait for them: for clusters
    that grow on demand."""
    share_stages: bool = True
    """Reuse the first stages of a fold from the fold store if the same first stages
    were trained before, and store finished stages for other trials."""
    checkpoint_every_s: Annotated[float, Field(ge=0)] | None = CHECKPOINT_EVERY_S
    """Least seconds between two checkpoints of a fold, from which it resumes after its process
    was killed. They are written right after an evaluation; 0: after every one; ``null``: none."""
    windows: Literal["auto", "resident", "streamed"] = "auto"
    """Where training reads windows of recordings from: a copy of the packs on the GPU
    (``resident``), or each batch from the machine's memory (``streamed``). ``auto``: resident
    if the packs take at most 40% of the GPU's free memory."""
    local_cache: Path | None = None
    """Folder on each machine's own disk to which its first worker copies the packs that it needs,
    for slow shared storage. Copies are compared with their checksums and stay until you remove
    the folder. Without room for them packs are read from the shared folder, with a warning.
    Default: no copies."""
    keep_weights: Literal["all"] | Count = "all"
    """Trials whose fold models are kept in the fold store: ``all``, or the best N of a study.
    The predictions of every trial stay, and so do weights that a stored blend uses."""
    max_concurrent_trials: Count | None = None
    """Largest number of trials that run at once. Default: one more than worker groups, so that
    no group waits for the next trial."""
    max_failures: Annotated[int, Field(ge=0)] = 1
    """How often a fold is trained again after its workers were lost while their machines stayed
    alive; after one more such loss its trial fails. Lost machines do not count."""
    stall_timeout_s: Positive | None = 600.0
    """Seconds without a step, a batch of an evaluation or a report after which the workers of a
    fold are ended and started again, which counts as a loss (``max_failures``); loading and
    compilation are excluded. Their Python stacks are in their logs. ``null``: never."""
    health_check_interval_s: Positive = 2.0
    """Seconds between Ray Train's checks of its workers; small values start faster."""
    start_timeout_s: Positive = 60.0
    """Seconds that Ray Train waits for the workers of a group before it tries again."""

    @property
    def device_class(self) -> Literal["cpu", "cuda"]:
        """Kind of device that trains."""
        return "cuda" if self.gpus_per_worker > 0 else "cpu"

    @property
    def devices(self) -> float:
        """GPUs of a worker group; without any, its CPUs."""
        return self.workers * (self.gpus_per_worker or self.cpus_per_worker)

    @field_validator("group", mode="before")
    @classmethod
    def _trial_is_now_study(cls, group: object) -> object:
        if group == "trial":
            raise ValueError("group: trial is now named group: study")
        return group

    @field_validator("local_cache")
    @classmethod
    def _is_on_every_machine(cls, folder: Path | None) -> Path | None:
        if folder is not None and not folder.is_absolute():
            raise ValueError(f"local_cache must be an absolute path, got {folder}")
        return folder

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

    base: str | None = None
    """Another space that this file changes: a file, relative to this one, or the name of a
    shipped one. Mappings are merged; lists and parameters replace those of the base, and a
    parameter that is ``null`` is removed. A study stores the merged space, without ``base``."""
    experiment: Experiment = Experiment()
    """What a trial trains, before searched values replace its own."""
    method: Literal["tpe", "random", "grid"] = "tpe"
    """Optuna's multivariate TPE (grouped if there are conditions), random search, or every
    point once."""
    metric: Metric = "kl_10"
    """Score to minimise: out-of-fold KL on all rows, or on rows with >= 4 or >= 10 votes. Or
    ``blend_gain``, to maximise: what a trial adds to a reference blend, see ``gain``."""
    gain: GainConfig = GainConfig()
    """Reference of ``metric: blend_gain``."""
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    """Dotted path into the experiment -> values to search."""
    start: list[dict[str, Any]] = Field(default_factory=list)
    """Points to try first: path -> value or label. Paths that a point omits have the
    experiment's own value, which must be a searched one."""
    warm_start: list[str] = Field(default_factory=list)
    """Earlier studies of the same rows and folds, by name or path: their finished trials that
    lie in this space teach the sampler, and do not count for the budget."""
    seed: int = 0
    """Seed of the sampler."""
    startup_trials: Count = 5
    """Random trials before TPE starts."""
    budget: BudgetConfig = BudgetConfig()
    prune: PruneConfig = PruneConfig()
    """Which trials are stopped before all folds are trained; may change between runs."""
    resources: ResourcesConfig = ResourcesConfig()

    @property
    def objective(self) -> Objective:
        """The score whose rows count: ``metric``, or ``gain.rows`` of a blend gain."""
        return self.gain.rows if self.metric == "blend_gain" else self.metric

    @model_validator(mode="after")
    def _gain_belongs_to_its_metric(self) -> Self:
        if self.metric != BLEND_GAIN and self.gain != GainConfig():
            raise ValueError("gain has no effect without metric: blend_gain")
        return self

    @model_validator(mode="after")
    def _gain_is_not_known_elsewhere(self) -> Self:
        if self.metric == BLEND_GAIN and self.warm_start:
            raise ValueError("warm_start needs a KL as metric: gains are of one study's references")
        return self

    @property
    def pruning(self) -> PruneConfig:
        """``prune``; none for a blend gain, which needs all folds of a trial."""
        return NO_PRUNING if self.metric == BLEND_GAIN else self.prune

    def alone(self) -> Space:
        """The experiment alone: nothing searched, one trial."""
        nothing = {
            "parameters": {},
            "start": [],
            "warm_start": [],
            "budget": BudgetConfig(trials=1),
        }
        score = {"metric": self.objective, "gain": GainConfig()}
        return self.model_copy(update={**nothing, **score})
