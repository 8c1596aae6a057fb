"""Every switch of an experiment, off alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from hms_ray.config.augmentation import AugmentConfig
from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.loading import load_space
from hms_ray.config.values import replace_values
from hms_ray.errors import ConfigError
from hms_ray.ladder.ablation import NEUTRAL, NO_SWITCH, SPECIAL, load_ablation, switches

FOLDER = Path(__file__).parents[2] / "search_spaces" / "ladder"
LAST = FOLDER / "32_one_eeg.yaml"


def fields(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Dotted paths of all values of an experiment; stages and augmentation as wholes."""
    for name, field in model.model_fields.items():
        place = f"{path}.{name}".lstrip(".")
        kind = field.annotation
        whole = place in ("data", "training.augment", "training.stages")
        if isinstance(kind, type) and issubclass(kind, BaseModel) and not whole:
            yield from fields(kind, place)
        else:
            yield place


def test_every_field_of_an_experiment_is_classified() -> None:
    """A new field belongs into one of the lists of ``ladder.ablation``."""
    known = [*NEUTRAL, *SPECIAL, *NO_SWITCH]
    assert len(set(known)) == len(known)
    assert sorted(known) == sorted(fields(Experiment))


def test_switches_of_the_last_step() -> None:
    ladder = load_ablation(LAST)
    names = [step.name.removeprefix("without_") for step in ladder.steps]
    assert names == [
        *("whole", "view_kaggle_percentiles", "view_eeg_panels", "normalisation", "loss"),
        *("cutmix", "mosaic", "stages", "drop_path", "dropout", "schedule", "weight_decay"),
        *("unanimous_from", "pretrained"),
    ]
    assert {step.before for step in ladder.steps[1:]} == {"whole"}
    assert ladder.steps[0].before is None
    assert {step.chain for step in ladder.steps} == {"ablation"}
    prints = {str(canonical(made)) for made in ladder.experiments().values()}
    assert len(prints) == len(ladder.steps)


def off(name: str, experiment: Experiment) -> Experiment:
    (switch,) = [switch for switch in switches(experiment) if switch.name == name]
    return replace_values(experiment, switch.off(experiment))


def test_augmentation_is_off_in_every_stage() -> None:
    experiment = load_space(LAST).experiment
    for name in ("cutmix", "mosaic"):
        stages = off(name, experiment).training.resolved_stages()
        assert [getattr(stage.augment, name) for stage in stages] == [None, None]
    without = off("mosaic", experiment).training.resolved_stages()
    assert all(stage.augment.cutmix is not None for stage in without)


@pytest.mark.parametrize("name", AugmentConfig.model_fields)
def test_every_augmentation_has_a_switch(name: str) -> None:
    field = AugmentConfig.model_fields[name]
    some = {} if field.default is None else 0.5
    experiment = replace_values(
        load_space(FOLDER / "01_panels.yaml").experiment,
        {
            "input.views": ["raw signals", "raw.centre signals"],
            "input.raw.margin_s": 1,
            "input.recipes.raw.centre": {"centre_s": 10, "margin_s": 6},
            f"training.augment.{name}": some,
        },
    )
    assert name not in [switch.name for switch in switches(Experiment())]
    assert off(name, experiment).training.augment == AugmentConfig()


def test_stages_off_is_one_stage_of_equal_length() -> None:
    experiment = load_space(FOLDER / "09_panels_4.yaml").experiment
    (stage,) = off("stages", experiment).training.resolved_stages()
    assert (stage.rows, stage.epochs) == ("all", 12)
    assert stage.augment == experiment.training.stages[0].augment


def test_normalisation_off_is_per_image_or_none() -> None:
    experiment = load_space(FOLDER / "07_panels.yaml").experiment
    alone = off("normalisation", experiment)
    assert alone.input.normalisation == "per_image"
    assert off("normalisation", alone).input.normalisation == "none"


def test_loss_off_includes_stages() -> None:
    stages = [{"loss": "kl_log_votes"}, {}]
    experiment = replace_values(Experiment(), {"training.stages": stages})
    assert {stage.loss for stage in off("loss", experiment).training.resolved_stages()} == {"kl"}


def test_ablation_accepts_overlay_settings_and_names() -> None:
    small = FOLDER / "small.yaml"
    ladder = load_ablation(LAST, small, ["training.seed=4"], ["whole", "without_loss"])
    assert [step.name for step in ladder.steps] == ["whole", "without_loss"]
    assert {made.training.seed for made in ladder.experiments().values()} == {4}
    assert {made.model.name for made in ladder.experiments().values()} == {"test_resnet"}
    assert ladder.resources.group == "study"
    # What the overlay turned off is no switch any more.
    names = [step.name for step in load_ablation(LAST, small).steps]
    assert not {"without_drop_path", "without_pretrained"} & set(names)
    with pytest.raises(ConfigError, match="--steps must name steps of the ladder, got without_x"):
        load_ablation(LAST, only=["without_x"])


def test_experiment_without_switches_is_refused(tmp_path: Path) -> None:
    bare = {"normalisation": "none"}
    file = tmp_path / "bare.yaml"
    file.write_text(
        f"experiment:\n  input: {{views: [eeg panels], eeg: {bare}}}\n"
        "  model: {name: test_resnet, pretrained: false, drop_path: 0.0, dropout: 0.0}\n"
        "  training: {schedule: constant, weight_decay: 0.0}\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError, match=r"technique to switch off, got nothing, in .*bare.yaml"):
        load_ablation(file)
