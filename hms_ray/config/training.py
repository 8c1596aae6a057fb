"""How a fold is trained: stages, schedule, losses."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hms_ray.config.augmentation import AugmentConfig
from hms_ray.config.eeg_recipes import Count, Frozen, Positive
from hms_ray.config.row_targets import LabelSmoothing, TierWeights

Loss = Literal["kl", "kl_votes", "kl_log_votes", "kl_capped_votes", "kl_floored_votes"]
StageRows = Literal["all", "below_threshold", "at_least_threshold"]
Checkpoint = Literal["last", "best"]
Criterion = Literal["stage_rows", "kl_all", "kl_4", "kl_10"]
LabelRowDraw = Literal["own", "random_window", "random_row"]
Compile = Literal["off", "default", "reduce-overhead"]


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
    label_rows: LabelRowDraw | None = None
    """Windows and votes of this stage. Default: ``training.label_rows``."""
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
    label_rows: LabelRowDraw
    augment: AugmentConfig
    checkpoint: Checkpoint
    """Evaluation whose weights the stage ends with, for the next stage or as the result."""
    criterion: Criterion | None
    """Score that chooses the best evaluation; None if the last one is kept."""

    def can_choose(self, epoch: int) -> bool:
        """Whether the evaluations of an epoch, from 0, can be chosen as the best."""
        return self.checkpoint == "best" and not self.has_mosaic(epoch)

    def has_mosaic(self, epoch: int) -> bool:
        """Whether batches of an epoch, from 0, can become mosaics."""
        mosaic = self.augment.mosaic
        return mosaic is not None and mosaic.applies_in(epoch)


class TrainingConfig(Frozen):
    """How a fold is trained."""

    seed: int = 0
    """Seed of all random draws; they derive from (seed, fold, stage, epoch)."""
    batch_size: Count = 32
    """Largest number of rows per optimiser step, over all workers together; the batches of
    an epoch are nearly equal."""
    learning_rate: Positive = 1e-3
    """Largest learning rate of the OneCycle schedule, or the constant rate."""
    head_rate: Positive = 1.0
    """Learning rate of the model's last layer as a multiple of ``learning_rate``, which is then
    the rate of all others."""
    layer_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Factor of the learning rate from each layer of the model to the one before it, by timm's
    division into layers. Default: one rate for all."""
    optimiser: Literal["adamw", "adam"] = "adamw"
    """``adam`` adds the weight decay to the gradient; the published recipes with it have none
    (``weight_decay: 0``)."""
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    """Schedule of the learning rate within a stage. ``cosine`` has the rates of ``one_cycle``
    with a fixed beta1 of 0.9, where OneCycle changes beta1 too. ``constant`` repeats the published
    notebooks, which never stepped their OneCycle scheduler: the rate stays constant, and
    beta1 of AdamW is 0.85."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Weight decay on all parameters; of AdamW decoupled from the gradient."""
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
    label_rows: LabelRowDraw = "own"
    """Window and votes that a row is trained with: its ``own``, with which it is scored; or those
    of one of the label rows that it was made of, drawn anew in each epoch: ``random_window`` takes
    only the window and keeps the row's votes, ``random_row`` takes both. Needs rows of several
    label rows (``data.unit: eeg_votes``, where both are the same, or ``eeg``)."""
    tier_weights: TierWeights | None = None
    """Weights of rows by tier, which can decay over the epochs of a stage; ``{}`` for the
    defaults. Default: off."""
    label_smoothing: LabelSmoothing | None = None
    """Softer training targets, by number of votes. Default: off."""
    clip_norm: Positive | None = None
    """Largest Euclidean norm of the gradient of an optimiser step; a longer gradient is scaled
    down to it. Default: none."""
    accumulate: Count = 1
    """Parts that a batch is trained in, one after the other, before the optimiser step, to save
    memory: gradients are summed, so ``batch_size`` is still the number of rows per step. Batch
    statistics are those of a part."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of an exponential moving average of the weights, such as 0.998: what is evaluated,
    kept and handed to the next stage is the average, which starts anew in each stage. Default:
    the weights themselves."""
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
    checkpoint: Checkpoint = "last"
    """Weights that a fold keeps and is scored with: of the last step, or of the best
    evaluation of the last stage (published), which makes the score optimistic."""
    next_stage_from: Checkpoint = "last"
    """Weights that the next stage starts from: of the last step of a stage, or of its best
    evaluation (published), which makes the score optimistic too."""
    checkpoint_criterion: Criterion = "stage_rows"
    """KL by which an evaluation is the best of its stage, the earliest of equal ones; those of
    mosaic epochs are never chosen. ``stage_rows``: on the validation rows that the rule of
    the stage's training rows selects (published); ``kl_all``, ``kl_4``, ``kl_10``: on all
    rows, or on rows with >= 4 or >= 10 votes."""
    sync_batchnorm: bool = False
    """BatchNorm layers use the rows of all GPUs of a worker group, as on one GPU, instead of
    each GPU's own; slower. No effect with one worker; groups of CPUs are refused."""
    deterministic: bool = True
    """Train with deterministic algorithms: a fold trained twice on the same kind of machine,
    with the same number of workers, threads and library versions, has equal bits. ``false``
    lets cuDNN pick the fastest algorithms; the last digits of results then differ."""
    compile: Compile = "off"
    """Compile the training step of the model with ``torch.compile``: about a minute per fold at
    its start, then more images per second. ``reduce-overhead`` also records CUDA graphs, which
    helps small models and takes memory. Results differ in their last digits; dropout draws
    other numbers."""
    precision: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """Floating-point precision. ``bfloat16`` and ``float16`` are used in autocast, ``float16``
    with a scaled loss and on GPUs only. ``auto``: bfloat16 on GPUs that support it, float16
    on others, float32 on CPUs."""

    @model_validator(mode="after")
    def _a_batch_has_its_parts(self) -> Self:
        if self.accumulate > self.batch_size:
            raise ValueError(
                "accumulate must be at most batch_size, the rows that it divides, got "
                f"{self.accumulate} parts of {self.batch_size} rows; use a smaller accumulate"
            )
        return self

    @model_validator(mode="after")
    def _a_best_evaluation_can_be_chosen(self) -> Self:
        for stage in self.resolved_stages():
            if stage.checkpoint == "last" or stage.can_choose(stage.epochs - 1):
                continue
            raise ValueError(
                "a stage that ends with its best evaluation needs an epoch without mosaic, got "
                f"mosaic in all {stage.epochs} epochs of stage {stage.name}; set augment.mosaic."
                "epochs below the stage's epochs, or checkpoint and next_stage_from to last"
            )
        return self

    def resolved_stages(self) -> tuple[ResolvedStage, ...]:
        """Stages with inherited values filled in, and unused thresholds and criteria removed."""
        handed = (self.next_stage_from,) * (len(self.stages) - 1)
        return tuple(
            ResolvedStage(
                name=stage.name,
                rows=stage.rows,
                threshold=None if stage.rows == "all" else self.stage_threshold,
                unanimous_from=None if stage.rows == "all" else self.unanimous_from,
                epochs=stage.epochs,
                loss=stage.loss or self.loss,
                learning_rate=stage.learning_rate or self.learning_rate,
                label_rows=stage.label_rows or self.label_rows,
                augment=self.augment if stage.augment is None else stage.augment,
                checkpoint=checkpoint,
                criterion=self.checkpoint_criterion if checkpoint == "best" else None,
            )
            for stage, checkpoint in zip(self.stages, (*handed, self.checkpoint), strict=True)
        )

    @property
    def draws_label_rows(self) -> bool:
        """Whether some stage is trained with windows of random label rows."""
        return any(stage.label_rows != "own" for stage in self.resolved_stages())

    def first_stages(self, n_stages: int) -> TrainingConfig:
        """The training that ends after its first stages, with what they hand to the next one."""
        if n_stages == len(self.stages):
            return self
        kept = {"stages": self.stages[:n_stages], "checkpoint": self.next_stage_from}
        return self.model_copy(update=kept)
