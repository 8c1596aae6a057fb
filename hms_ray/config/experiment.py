"""An experiment: data, input, model, training; and its canonical form.

Configurations are frozen and validated when they are created. The canonical form holds
only what changes results, with every default written out, so that two ways of writing one
experiment have one cache key.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from hms_ray.config.augment_checks import augmentation_fault
from hms_ray.config.branches import (
    BranchConfig,
    Pooling,
    branch_inputs,
    branches_fault,
    canonical_images,
    joint_input,
)
from hms_ray.config.eeg_recipes import Count, Frozen
from hms_ray.config.import_path import is_import_path, well_formed
from hms_ray.config.inputs import InputConfig, Recipe, margin_fault, used_sources
from hms_ray.config.prediction import PredictionConfig, RowVariant, shift_fault
from hms_ray.config.training import TrainingConfig


class DataConfig(Frozen):
    """Which rows are used and how they are divided into folds."""

    unit: Literal["eeg_votes", "eeg", "label"] = "eeg_votes"
    """One row per distinct (EEG, six votes), per EEG, or per label row."""
    window: Literal["middle", "nearest"] = "middle"
    """Window of a row with several label rows: the middle between the first and the last
    offset, or the label row nearest to it."""
    n_folds: Annotated[int, Field(ge=2)] = 5
    """Number of folds; no patient is in two of them."""
    fold_seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Seed of the shuffled StratifiedGroupKFold."""
    n_patients: Count | None = None
    """Use only this many patients, drawn at random with ``fold_seed``. Default: all."""
    unusable: Literal["error", "keep", "drop"] = "error"
    """Rows without any usable signal in a source that the study uses: stop with an
    ``error``, ``keep`` them zero-filled, or ``drop`` them after the folds are drawn from
    all rows."""
    holdout: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of the patients that are set aside and never trained on, chosen on or fitted
    on; ``hms-ray holdout`` scores them. Default: none."""
    holdout_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the choice of these patients; nothing else changes it."""


_OF_BRANCHES: Final = ("name", "pretrained", "weights_file", "drop_path", "pooling")
"""Fields of a model that each branch has for itself."""


class ModelConfig(Frozen):
    """A timm model and its pretrained weights."""

    name: str = "efficientnet_b0.ra_in1k"
    """A model of timm with the tag of its weights, see ``timm.list_pretrained()``. Without a
    tag, timm chooses the weights. ``package.module:function`` calls a function that returns any
    ``torch.nn.Module`` from (B, C, H, W) images to (B, 6) logits."""
    pretrained: bool = True
    """Start from pretrained weights; no effect on a model from elsewhere."""
    weights_file: str | None = None
    """File with the pretrained weights, or folder with one file per model, such as
    ``efficientnet_b0.ra_in1k.safetensors``, for machines without internet access. Default:
    downloaded from the hub of timm."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Stochastic depth: largest probability that a block is skipped in training."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Dropout probability before the last layer."""
    pooling: Pooling = "own"
    """How the last feature map becomes features: as the model has it (``own``, mostly ``avg``),
    its mean, maximum, the mean of both (``avgmax``), or the generalised mean with a trained
    exponent that starts at 3 (``gem``)."""
    output: Literal["softmax", "sigmoid"] = "softmax"
    """How logits become probabilities. ``sigmoid``: a sigmoid per class, divided by their sum;
    it is trained by binary cross-entropy, as the KL divergence of each class by itself."""
    head: Literal["one", "per_tier"] = "one"
    """Last layer. ``per_tier``: one for rows with 1-2, 3-9 and >= 10 votes each, trained together;
    each row trains that of its tier, and the one of >= 10 votes predicts."""
    branches: Annotated[tuple[BranchConfig, ...], Field(min_length=1)] | None = None
    """Several encoders, one head: each branch is a timm model on its own views; their features
    are joined, and one linear layer after ``dropout`` makes the logits. Default: one model,
    ``name``, on ``input.views``."""

    @property
    def encoders(self) -> tuple[ModelConfig, ...]:
        """The model itself, or the model of each branch."""
        if self.branches is None:
            return (self,)
        return tuple(
            ModelConfig(dropout=0, **{name: getattr(branch, name) for name in _OF_BRANCHES})
            for branch in self.branches
        )

    @property
    def weights_files(self) -> dict[str, str | None]:
        """Dotted path in the experiment -> the weights file that is set there."""
        if self.branches is None:
            return {"model.weights_file": self.weights_file}
        return {
            f"model.branches.{number}.weights_file": branch.weights_file
            for number, branch in enumerate(self.branches)
        }

    @property
    def title(self) -> str:
        """Name of the model, or of all encoders, for people to read."""
        return " + ".join(encoder.name for encoder in self.encoders)

    def changed_encoders(self, **values: Any) -> Self:
        """The same with values of the model, or of all its branches, unchecked."""
        if self.branches is None:
            return self.model_copy(update=values)
        branches = tuple(branch.model_copy(update=values) for branch in self.branches)
        return self.model_copy(update={"branches": branches})

    def without_weights(self) -> Self:
        """The same without pretrained weights, which some caller would replace."""
        return self.changed_encoders(pretrained=False, weights_file=None)

    @model_validator(mode="after")
    def _branches_have_their_own_values(self) -> Self:
        fields = type(self).model_fields
        for field in _OF_BRANCHES:
            if self.branches is not None and getattr(self, field) != fields[field].default:
                raise ValueError(
                    f"{field} has no effect with branches, each of which has its own {field}; set "
                    f"it there, and omit model.{field}"
                )
        return self

    @model_validator(mode="after")
    def _weights_belong_to_pretrained(self) -> Self:
        if self.weights_file is not None and not self.pretrained:
            raise ValueError("weights_file needs pretrained: true")
        return self

    @model_validator(mode="after")
    def _a_function_makes_the_whole_model(self) -> Self:
        if not is_import_path(self.name):
            return self
        if not well_formed(self.name):
            raise ValueError(f"name must be package.module:function, got {self.name}")
        for field, unused in (("weights_file", None), ("pooling", "own"), ("head", "one")):
            if getattr(self, field) != unused:
                raise ValueError(
                    f"{field} needs a model of timm, got {self.name}; do it in the function, and "
                    f"omit {field}"
                )
        return self


class Experiment(Frozen):
    """A configuration with no free values: what one trial trains."""

    name: str = "experiment"
    """Name in logs and tables; changes no result."""
    data: DataConfig = DataConfig()
    input: InputConfig = InputConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    prediction: PredictionConfig = PredictionConfig()
    """What is averaged to predict a row; part of the score, so that it needs training anew."""

    @property
    def joint_input(self) -> InputConfig:
        """The input with the views of all branches: its sources are those that are used."""
        return joint_input(self.input, self.model.branches)

    @property
    def sources(self) -> dict[str, Recipe]:
        """The sources of all views and their recipes, see ``used_sources``."""
        return used_sources(self.joint_input)

    @property
    def branch_inputs(self) -> tuple[InputConfig, ...]:
        """The input of the image of each branch; empty without branches."""
        return branch_inputs(self.input, self.model.branches)

    @property
    def image_inputs(self) -> tuple[InputConfig, ...]:
        """The input of each image of a row: one, or one per branch."""
        return self.branch_inputs or (self.input,)

    @model_validator(mode="after")
    def _branches_have_images(self) -> Self:
        if fault := branches_fault(self.input, self.model.branches):
            raise ValueError(fault)
        if self.model.branches is None:
            return self
        for stage in self.training.resolved_stages():
            for field in ("cutmix", "mosaic"):
                if getattr(stage.augment, field) is not None:
                    raise ValueError(
                        f"augment.{field} cuts one image by its columns, and model.branches have "
                        f"images of different widths; use mixup, or set {field}: null"
                    )
        return self

    @model_validator(mode="after")
    def _margins_hold_shifts(self) -> Self:
        stages = self.training.resolved_stages()
        largest = max(stage.augment.window_shift_s for stage in stages)
        if fault := margin_fault(self.joint_input, largest):
            raise ValueError(fault)
        for shift_s in sorted(set(self.prediction.shifts_s) - {0.0}, key=abs, reverse=True):
            if fault := shift_fault(self.joint_input, shift_s):
                raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _inputs_allow_augmentation(self) -> Self:
        for stage in self.training.resolved_stages():
            if fault := augmentation_fault(self.joint_input, stage.augment):
                raise ValueError(fault)
        flips = RowVariant(self.prediction.flips).augment
        if fault := augmentation_fault(self.joint_input, flips):
            # Its remedy is that of training.
            reason = fault.rpartition("; ")[0].replace("augment.", "prediction.flips: ")
            raise ValueError(f"{reason}; add such a view, or remove the flip")
        return self

    @model_validator(mode="after")
    def _rows_have_several_label_rows(self) -> Self:
        if self.data.unit == "label" and self.training.draws_label_rows:
            raise ValueError(
                "training.label_rows must be own for data.unit: label, whose rows are single label "
                "rows; set data.unit: eeg or eeg_votes, or label_rows: own"
            )
        return self


def used_data_values(config: DataConfig) -> dict[str, Any]:
    """The data configuration as plain data, without values that have no effect."""
    data = config.model_dump(mode="json")
    if not config.holdout:
        del data["holdout"], data["holdout_seed"]
    return data


_ADDED: Final[dict[str, Any]] = {
    "compile": "off",
    "clip_norm": None,
    "accumulate": 1,
    "ema": None,
    "sync_batchnorm": False,
    "head_rate": 1.0,
    "layer_decay": None,
    "optimiser": "adamw",
    "tier_weights": None,
    "label_smoothing": None,
}
_ADDED_TO_MODEL: Final[dict[str, Any]] = {
    "pooling": "own",
    "output": "softmax",
    "head": "one",
    "branches": None,
}
"""Fields of ``training`` and ``model`` with the default that keeps what was trained before they
existed: results from then have keys without them."""
_ADDED_TO_AUGMENT: Final = (
    *("sign_flip", "front_back_flip", "lateral_swap", "chain_shuffle", "pair_drop"),
    *("narrow_band", "time_zoom", "signal_mixup", "block_drop", "centre_shift"),
)
"""Augmentations added later; they are off by default, and then keys are without them."""


def canonical(experiment: Experiment) -> dict[str, Any]:
    """The part of an experiment that changes its results, as plain data.

    Stages get the values that they inherit. Names are removed, and so are thresholds, criteria
    and sources that nothing uses, and the path of a weights file: the cache key of a fold
    contains its content instead (see ``experiment.cache_key``).
    """
    data = experiment.model_dump(mode="json")
    del data["name"], data["model"]["weights_file"]
    data["data"] = used_data_values(experiment.data)
    data["input"], branches = canonical_images(experiment.input, experiment.model.branches)
    data["prediction"] = experiment.prediction.canonical()
    if data["prediction"] is None:
        del data["prediction"]
    training = data["training"]
    for inherited in (
        "loss",
        "learning_rate",
        "label_rows",
        "augment",
        "stage_threshold",
        "unanimous_from",
        "checkpoint",
        "next_stage_from",
        "checkpoint_criterion",
    ):
        del training[inherited]
    for field, default in _ADDED.items():
        if training[field] == default:
            del training[field]
    tiers, smoothing = training.get("tier_weights"), training.get("label_smoothing")
    if tiers and not any(tiers["decay"]):
        del tiers["floor"]
    if smoothing and not smoothing["share"]:
        del smoothing["max_votes"]
    for field, default in _ADDED_TO_MODEL.items():
        if data["model"][field] == default:
            del data["model"][field]
    if branches is not None:
        for field in _OF_BRANCHES:
            data["model"].pop(field, None)
        data["model"]["branches"] = branches
    elif is_import_path(experiment.model.name):
        del data["model"]["pretrained"]
    training["stages"] = [
        stage.model_dump(mode="json", exclude={"name"})
        for stage in experiment.training.resolved_stages()
    ]
    for stage in training["stages"]:
        for field in _ADDED_TO_AUGMENT:
            value = stage["augment"][field]
            if not (value["probability"] if isinstance(value, dict) else value):
                del stage["augment"][field]
        if stage["label_rows"] == "own":
            del stage["label_rows"]
        elif experiment.data.unit == "eeg_votes":
            # The label rows of a row have its votes.
            stage["label_rows"] = "random_window"
    return data
