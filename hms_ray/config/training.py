"""How a fold is trained: stages, schedule, losses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hms_ray.config.augmentation import AugmentConfig, with_augment
from hms_ray.config.eeg_recipes import Count, Frozen, Positive

Loss = Literal["kl", "kl_log_votes", "kl_capped_votes", "kl_floored_votes"]
StageRows = Literal["all", "below_threshold", "at_least_threshold"]


class StageConfig(Frozen):
    """One stage of training: which rows, how long; the rest as in ``training``."""

    name: str = "train"
    """Shown in logs."""
    rows: StageRows = "all"
    """Training rows by total votes against ``training.stage_threshold`` (and
    ``training.unanimous_from``)."""
    epochs: Count = 6
    """Passes over the stage's rows."""
    loss: Loss | None = None
    """Loss of this stage; ``training.loss`` where absent."""
    learning_rate: Positive | None = None
    """Largest learning rate; ``training.learning_rate`` where absent."""
    augment: AugmentConfig | None = None
    """Augmentation of this stage, ``{}`` for none; ``training.augment`` where absent."""

    @model_validator(mode="before")
    @classmethod
    def _older_cutmix(cls, data: Any) -> Any:
        return with_augment(data)


class ResolvedStage(Frozen):
    """A stage with nothing left to inherit."""

    name: str
    rows: StageRows
    threshold: int | None
    unanimous_from: int | None
    epochs: int
    loss: Loss
    learning_rate: float
    augment: AugmentConfig


class TrainingConfig(Frozen):
    """How a fold is trained."""

    seed: int = 0
    """Every draw of a fold derives from (seed, fold, stage, epoch)."""
    batch_size: Count = 32
    """Largest global batch, whatever the number of workers."""
    learning_rate: Positive = 1e-3
    """Largest rate of the OneCycle schedule, or the constant one."""
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    """Of a stage's learning rate. ``constant`` is what the published notebooks ran, which
    never stepped their OneCycle: the rate stays, and AdamW's beta1 is 0.85."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """AdamW's decoupled weight decay."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a stage's steps during which the rate rises (published: 0)."""
    div_factor: Positive = 25.0
    """First rate of the warmup = learning_rate / div_factor."""
    final_div_factor: Positive = 0.4
    """Last rate = learning_rate / div_factor / final_div_factor (published: 0.4)."""
    loss: Loss = "kl"
    """Row weights by total votes."""
    normalise_weights: bool = False
    """Divide row weights by their mean over the batch (published: no)."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentation of all stages that do not say otherwise."""
    stage_threshold: Annotated[int, Field(ge=2)] = 5
    """Total votes from which a row is a good one; used by stages that ask for it."""
    unanimous_from: Annotated[int, Field(ge=1)] | None = None
    """Rows whose experts all agree are good ones from this many votes on (published
    notebooks: 4, beside a threshold of 5)."""
    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1)] = (StageConfig(),)
    """Trained in turn, each with a fresh AdamW and schedule."""
    checkpoint: Literal["last", "best"] = "last"
    """``best`` keeps the best evaluation on the scored rows: its score is optimistic."""
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    """``auto``: bfloat16 autocast on a GPU that has it, float32 elsewhere."""

    @model_validator(mode="before")
    @classmethod
    def _older_cutmix(cls, data: Any) -> Any:
        return with_augment(data)

    def resolved_stages(self) -> tuple[ResolvedStage, ...]:
        """Stages with inherited values filled in and unused thresholds dropped."""
        return tuple(
            ResolvedStage(
                name=stage.name,
                rows=stage.rows,
                threshold=None if stage.rows == "all" else self.stage_threshold,
                unanimous_from=None if stage.rows == "all" else self.unanimous_from,
                epochs=stage.epochs,
                loss=stage.loss or self.loss,
                learning_rate=stage.learning_rate or self.learning_rate,
                augment=self.augment if stage.augment is None else stage.augment,
            )
            for stage in self.stages
        )
