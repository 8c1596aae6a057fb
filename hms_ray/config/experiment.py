"""Frozen, validated models of every knob; canonical form and hash.

A configuration is made once, checked when it is made, and never changed. Its
canonical form holds only what changes results, every default spelled out, so
two ways of writing the same experiment have one hash.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hms_ray.config.eeg_recipes import Count, Frozen
from hms_ray.config.inputs import InputConfig, canonical_input, margin_fault
from hms_ray.config.training import TrainingConfig


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
