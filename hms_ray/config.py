"""Frozen, validated models of every knob; canonical form and hash.

A configuration is made once, checked when it is made, and never changed. Its
canonical form holds only what changes results, every default spelled out, so
two ways of writing the same experiment have one hash.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hms_ray.config_augment import AugmentConfig, CutMixConfig
from hms_ray.config_input import InputConfig, canonical_input, margin_fault
from hms_ray.config_recipes import Count, EegRecipe, Frozen, Gaps, Positive, RawRecipe
from hms_ray.config_training import Loss, ResolvedStage, StageConfig, TrainingConfig

__all__ = [
    "AugmentConfig",
    "CutMixConfig",
    "EegRecipe",
    "Gaps",
    "InputConfig",
    "Loss",
    "RawRecipe",
    "ResolvedStage",
    "StageConfig",
    "TrainingConfig",
]

Objective = Literal["kl_all", "kl_4", "kl_10"]
Scalar = bool | int | float | str | None


class DataConfig(Frozen):
    """Which rows there are and how they are divided."""

    unit: Literal["eeg_votes", "eeg", "label"] = "eeg_votes"
    """One row a distinct (EEG, six votes), an EEG, or a label row."""
    window: Literal["middle", "nearest"] = "middle"
    """Middle of the row's first and last offset, or the label row nearest to it."""
    n_folds: Annotated[int, Field(ge=2)] = 5
    """Patient-grouped folds."""
    fold_seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Seed of the shuffled StratifiedGroupKFold."""
    n_patients: Count | None = None
    """Only so many patients, drawn at random with ``fold_seed``; all where absent or
    where there are fewer."""
    unusable: Literal["error", "keep", "drop"] = "error"
    """Rows without any usable signal in some source that the study uses: stop with an
    ``error``, ``keep`` them as zeros, or ``drop`` them after folds were drawn from all
    rows."""


class ModelConfig(Frozen):
    """A timm model."""

    name: str = "tf_efficientnet_b0"
    """Any name that ``timm.list_models()`` knows."""
    pretrained: bool = True
    """Start from pretrained weights: timm's hub, or ``weights_file``."""
    weights_file: str | None = None
    """Local file with the pretrained weights, for machines without the hub."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Stochastic depth rate."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Dropout before the last layer."""

    @model_validator(mode="after")
    def _weights_belong_to_pretrained(self) -> Self:
        if self.weights_file is not None and not self.pretrained:
            raise ValueError("weights_file needs pretrained: true")
        return self


class Experiment(Frozen):
    """A configuration with nothing left free: one trial's worth of folds."""

    name: str = "experiment"
    """Shown in logs and tables; changes no result."""
    data: DataConfig = DataConfig()
    input: InputConfig = InputConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _margins_hold_shifts(self) -> Self:
        stages = self.training.resolved_stages()
        largest = max(stage.augment.window_shift_s for stage in stages)
        if fault := margin_fault(self.input, largest):
            raise ValueError(fault)
        return self


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


def canonical(experiment: Experiment) -> dict[str, Any]:
    """What of an experiment changes its results, as plain data.

    Names are dropped, stages inherit, and thresholds and sources that nothing uses
    are dropped. So is the path of a weights file: its content belongs to the key
    that the fold store makes (see ``experiment.fold_key``).
    """
    data = experiment.model_dump(mode="json")
    del data["name"], data["model"]["weights_file"]
    data["input"] = canonical_input(experiment.input)
    training = data["training"]
    for inherited in (
        "loss",
        "learning_rate",
        "augment",
        "stage_threshold",
        "unanimous_from",
    ):
        del training[inherited]
    training["stages"] = [
        stage.model_dump(mode="json", exclude={"name"})
        for stage in experiment.training.resolved_stages()
    ]
    return data


def digest(data: Any) -> str:
    """SHA-256 (hex) of plain data, independent of the order of keys.

    Args:
        data: anything that JSON can hold; NaN and infinity are refused.
    """
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
