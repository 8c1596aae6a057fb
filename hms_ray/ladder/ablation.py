"""Ablation: each switch of an experiment off alone, against all of them on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hms_ray.config.augmentation import AugmentConfig
from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.loading import load_space
from hms_ray.config.values import replace_values
from hms_ray.errors import ConfigError
from hms_ray.ladder.scale import adapted, read_scale
from hms_ray.ladder.steps import Ladder, LadderStep, select_steps

WHOLE: Final = "whole"
"""Name of the step with every switch on."""


@dataclass(frozen=True)
class Switch:
    """A technique that can be switched off.

    Attributes:
        name: its step is ``without_NAME``.
        change: in a few words.
        off: experiment -> values by dotted path that switch it off; empty if it is off.
    """

    name: str
    change: str
    off: Callable[[Experiment], dict[str, Any]]


NEUTRAL: Final[dict[str, Any]] = {
    "model.drop_path": 0.0,
    "model.dropout": 0.0,
    "input.channels": 1,
    "input.eeg.normalisation": "none",
    "input.eeg.centre_s": 50.0,
    "input.eeg.band_hz": None,
    "input.eeg.clip_uv": None,
    "input.pairs.normalisation": "none",
    "input.pairs.centre_s": 50.0,
    "input.pairs.band_hz": None,
    "input.pairs.clip_uv": None,
    "input.pairs.midline": False,
    "input.raw.normalisation": "none",
    "input.raw.centre_s": 50.0,
    "input.raw.band_hz": None,
    "input.raw.midline": False,
    "training.schedule": "constant",
    "training.weight_decay": 0.0,
    "training.warmup": 0.0,
    "training.normalise_weights": False,
    "training.unanimous_from": None,
    "training.label_rows": "own",
    "training.tier_weights": None,
    "training.label_smoothing": None,
    "training.clip_norm": None,
    "training.ema": None,
    "training.head_rate": 1.0,
    "training.layer_decay": None,
    "training.optimiser": "adamw",
    "model.head": "one",
    "model.output": "softmax",
    "model.pooling": "own",
    "prediction.flips": [],
    "prediction.shifts_s": [],
    "training.checkpoint": "last",
    "training.next_stage_from": "last",
}
"""Dotted path -> value that switches it off."""

SPECIAL: Final = (
    "model.pretrained",
    "model.weights_file",
    "model.branches",
    "input.views",
    "input.normalisation",
    "training.loss",
    "training.augment",
    "training.stages",
)
"""Paths with switches of their own."""

NO_SWITCH: Final = (
    "name",
    "data",
    "input.downsample",
    "input.height",
    "input.size",
    "input.pad",
    "input.splice_s",
    *(f"input.recipes.{source}" for source in ("eeg", "pairs", "raw")),
    *(
        f"input.eeg.{name}"
        for name in ("kind", "window_samples", "hop_samples", "gaps", "downsample")
    ),
    *(
        f"input.raw.{name}"
        for name in ("order", "rate_hz", "clip_uv", "scale_uv", "gaps", "downsample", "rows")
    ),
    *(
        f"input.pairs.{name}"
        for name in (
            *("kind", "order", "window_samples", "hop_samples", "n_fft", "n_frames"),
            *("frequencies_hz", "n_mels", "mels", "scale", "reference_power", "smallest_power"),
            *("clip_values", "subtract", "divide", "scale_uv", "gaps", "downsample"),
        )
    ),
    # Without a shift, the margin around a window is stored and never used.
    *(f"input.{source}.margin_s" for source in ("eeg", "pairs", "raw")),
    "model.name",
    *(f"training.{name}" for name in ("seed", "batch_size", "learning_rate", "precision")),
    *(f"training.{name}" for name in ("div_factor", "final_div_factor", "stage_threshold")),
    *(
        f"training.{name}"
        for name in (
            "checkpoint_criterion",
            "deterministic",
            "compile",
            "accumulate",
            "sync_batchnorm",
        )
    ),
)
"""Paths without a value that means off, or that change how training computes and not what."""


def switches(experiment: Experiment) -> list[Switch]:
    """The switches that are on in an experiment.

    Args:
        experiment: any experiment.
    """
    made = [
        *_views(experiment),
        *_branches(experiment),
        Switch("normalisation", "normalisation off", _normalisation_off),
        Switch("loss", "loss: kl", _loss_off),
        *(
            Switch(name, f"{name.replace('_', ' ')} off", _augmentation_off(name))
            for name in AugmentConfig.model_fields
        ),
        Switch("stages", "one stage of all rows, as many epochs", _stages_off),
        *(
            Switch(
                path.split(".", 1)[1], f"{path.split('.', 1)[1]}: {_value_text(value)}", _set(path)
            )
            for path, value in NEUTRAL.items()
        ),
        Switch("pretrained", "pretraining off", _pretraining_off),
    ]
    whole = canonical(experiment)
    found = []
    for switch in made:
        values = switch.off(experiment)
        if not values:
            continue
        try:
            changed = replace_values(experiment, values)
        except ConfigError:
            # Off alone, it does not fit the other values.
            continue
        if canonical(changed) != whole:
            found.append(switch)
    return found


def load_ablation(
    file: str | Path,
    scale: str | Path | None = None,
    settings: Sequence[str] = (),
    only: Sequence[str] = (),
) -> Ladder:
    """A ladder of an experiment and, against it, each of its switches off alone.

    Args:
        file: the experiment; searched values keep their defaults.
        scale: file of an overlay, applied first.
        settings: texts ``a.b=value``, applied after the overlay.
        only: names of steps. Default: all.

    Raises:
        ConfigError: see ``load_space`` and ``scaled``; also for an unknown name in
            ``only``, and if nothing can be switched off.
    """
    overlay = None if scale is None else read_scale(scale)
    space = adapted(load_space(file).alone(), overlay, settings, file)
    whole = space.experiment.model_copy(update={"name": WHOLE})
    steps = [LadderStep(WHOLE, "ablation", "the whole experiment", None, whole)]
    for switch in switches(whole):
        name = f"without_{switch.name}"
        changed = replace_values(whole, {**switch.off(whole), "name": name})
        steps.append(LadderStep(name, "ablation", switch.change, WHOLE, changed))
    if len(steps) == 1:
        raise ConfigError(
            "an ablation needs an experiment with a technique to switch off",
            got="nothing",
            where=file,
        )
    return select_steps(Ladder(tuple(steps), space.resources), only, file)


def _views(experiment: Experiment) -> list[Switch]:
    views = [str(view) for view in experiment.input.parsed_views]

    def without(number: int) -> Callable[[Experiment], dict[str, Any]]:
        return lambda _: {"input.views": [*views[:number], *views[number + 1 :]]}

    return [
        Switch(
            f"view_{views[number].replace(' ', '_')}", f"without {views[number]}", without(number)
        )
        for number in range(1, len(views))
    ]


def _branches(experiment: Experiment) -> list[Switch]:
    branches = [branch.model_dump(mode="json") for branch in experiment.model.branches or ()]

    def without(number: int) -> Callable[[Experiment], dict[str, Any]]:
        kept = [*branches[:number], *branches[number + 1 :]]
        return lambda _: {"model.branches": kept}

    return [
        Switch(f"branch_{number}", f"without branch {number}", without(number))
        for number in range(len(branches))
        if len(branches) > 1
    ]


def _normalisation_off(experiment: Experiment) -> dict[str, Any]:
    # Per image is the baseline of all other normalisations.
    alone = experiment.input.normalisation == "per_image"
    return {"input.normalisation": "none" if alone else "per_image"}


def _loss_off(experiment: Experiment) -> dict[str, Any]:
    stages = enumerate(experiment.training.stages)
    own = {f"training.stages.{n}.loss": "kl" for n, stage in stages if stage.loss is not None}
    return {"training.loss": "kl", **own}


def _augmentation_off(name: str) -> Callable[[Experiment], dict[str, Any]]:
    neutral = AugmentConfig().model_dump(mode="json")[name]

    def off(experiment: Experiment) -> dict[str, Any]:
        stages = enumerate(experiment.training.stages)
        own = {
            f"training.stages.{n}.augment.{name}": neutral
            for n, stage in stages
            if stage.augment is not None
        }
        return {f"training.augment.{name}": neutral, **own}

    return off


def _stages_off(experiment: Experiment) -> dict[str, Any]:
    stages = [stage.model_dump(mode="json") for stage in experiment.training.stages]
    epochs = sum(stage["epochs"] for stage in stages)
    return {"training.stages": [{**stages[0], "rows": "all", "epochs": epochs}]}


def _pretraining_off(experiment: Experiment) -> dict[str, Any]:
    branches = experiment.model.branches
    if branches is None:
        return {"model.pretrained": False, "model.weights_file": None}
    # Encoders without trained weights cannot stay as they are.
    off = {"pretrained": False, "weights_file": None, "frozen": False}
    return {
        f"model.branches.{number}.{name}": value
        for number in range(len(branches))
        for name, value in off.items()
    }


def _set(path: str) -> Callable[[Experiment], dict[str, Any]]:
    return lambda _: {path: NEUTRAL[path]}


def _value_text(value: Any) -> str:
    return "none" if value is None else str(value)
