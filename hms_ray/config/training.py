"""How a fold is trained: stages, schedule, losses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hms_ray.config.augmentation import AugmentConfig
from hms_ray.config.eeg_recipes import Count, Frozen, Positive

Loss = Literal["kl", "kl_log_votes", "kl_capped_votes", "kl_floored_votes"]
StageRows = Literal["all", "below_threshold", "at_least_threshold"]


class StageConfig(Frozen):
    """One stage of training; what it omits is taken from ``training``."""

    name: str = "train"
    """Name in logs; changes no result."""
    rows: StageRows = "all"
    """Training rows of the stage: ``all``, or rows with fewer than, or at least,
    ``training.stage_threshold`` total votes (see ``training.unanimous_from``)."""
    epochs: Count = 6
    """Number of passes over the rows of the stage."""
    loss: Loss | None = None
    """Loss of this stage. Default: ``training.loss``."""
    learning_rate: Positive | None = None
    """Largest learning rate of this stage. Default: ``training.learning_rate``."""
    augment: AugmentConfig | None = None
    """Augmentation of this stage; ``{}`` for none. Default: ``training.augment``."""


class ResolvedStage(Frozen):
    """A stage with every inherited value filled in."""

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
    """Seed of all random draws; they derive from (seed, fold, stage, epoch)."""
    batch_size: Count = 32
    """Largest number of rows per optimiser step, over all workers together; the batches of
    an epoch are nearly equal."""
    learning_rate: Positive = 1e-3
    """Largest learning rate of the OneCycle schedule, or the constant rate."""
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    """Schedule of the learning rate within a stage. ``constant`` repeats the published
    notebooks, which never stepped their OneCycle scheduler: the rate stays constant, and
    beta1 of AdamW is 0.85."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Decoupled weight decay of AdamW."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the steps of a stage during which the learning rate rises (published: 0)."""
    div_factor: Positive = 25.0
    """Learning rate at the start of the warmup = learning_rate / div_factor."""
    final_div_factor: Positive = 0.4
    """Learning rate at the end = learning_rate / div_factor / final_div_factor
    (published: 0.4)."""
    loss: Loss = "kl"
    """KL divergence: unweighted, or each row weighted by its total votes (see
    ``hms_ray.train.losses``)."""
    normalise_weights: bool = False
    """Divide the row weights of a batch by their mean (published: no)."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentation of all stages that have none of their own."""
    stage_threshold: Annotated[int, Field(ge=2)] = 5
    """Total votes that separate the rows of ``below_threshold`` and ``at_least_threshold``
    stages."""
    unanimous_from: Annotated[int, Field(ge=1)] | None = None
    """Rows with a unanimous vote count as ``at_least_threshold`` from this many votes
    (published notebooks: 4, with a threshold of 5). Default: the threshold alone decides."""
    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1)] = (StageConfig(),)
    """Stages in the order of training, each with a new AdamW and schedule."""
    checkpoint: Literal["last", "best"] = "last"
    """Which weights are kept: those of the last step, or of the best evaluation on the
    scored rows, which makes the score optimistic."""
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    """Floating-point precision. ``auto``: bfloat16 autocast on a GPU that supports it,
    float32 elsewhere."""

    def resolved_stages(self) -> tuple[ResolvedStage, ...]:
        """Stages with inherited values filled in and unused thresholds removed."""
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
