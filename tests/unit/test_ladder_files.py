"""The files of the published ladder, at full size and small."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hms_ray.config.experiment import ModelConfig, canonical
from hms_ray.config.loading import load_space, replace_values
from hms_ray.errors import ConfigError
from hms_ray.experiment.preflight import image_size_of
from hms_ray.ladder.manifest import read_manifest
from hms_ray.ladder.plan import sources_of
from hms_ray.ladder.scale import Scale, read_scale, scaled
from hms_ray.ladder.steps import Ladder, load_ladder
from hms_ray.search.distributions import trial_key
from hms_ray.train.model import build_model

FOLDER = Path(__file__).parents[2] / "search_spaces" / "ladder"
MANIFEST, SMALL = FOLDER / "ladder.yaml", FOLDER / "small.yaml"
FILES = sorted(FOLDER.glob("[0-9]*.yaml"))


@pytest.fixture(scope="module")
def full() -> Ladder:
    return load_ladder(MANIFEST)


@pytest.fixture(scope="module")
def small() -> Ladder:
    return load_ladder(MANIFEST, SMALL)


def test_every_file_is_a_step_with_a_description() -> None:
    named = [entry.file for entry in read_manifest(MANIFEST).steps if entry.file]
    assert sorted(named) == [file.name for file in FILES]
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        assert text.startswith("# "), file
        assert max(map(len, text.splitlines())) <= 100, file
        assert load_space(file).experiment.name == file.stem.split("_", 1)[1]


# step: published out-of-fold KL and leaderboard, from the table of the publication.
TABLE = {
    "1_panels": (0.7287, 0.45),
    "2_statistics": (0.7324, 0.46),
    "3_ensemble_fixed": (None, 0.42),
    "3_input_ensemble": (0.7027, 0.43),
    "4_eeg_panels": (0.7104, 0.45),
    "4_eeg_statistics": (0.7537, 0.46),
    "4_ensemble_fixed": (None, 0.42),
    "5_ensemble_fixed": (None, 0.38),
    "6_panels": (0.6767, 0.42),
    "6_statistics": (0.6971, 0.42),
    "6_ensemble_fixed": (None, 0.40),
    "7_panels": (0.6355, 0.40),
    "7_statistics": (0.6566, 0.41),
    "7_ensemble_fixed": (None, 0.38),
    "8_panels": (0.6290, 0.37),
    "8_statistics": (0.6402, 0.39),
    "8_ensemble_fixed": (None, 0.36),
    "9_panels_5u": (0.4142, 0.34),
    "9_statistics_5u": (0.4240, None),
    "9_eeg_panels_5u": (0.4608, 0.37),
    "final_5u_fixed": (None, 0.32),
}


def test_published_figures_match_the_publication(full: Ladder) -> None:
    figures = {step.name: (step.published.cv, step.published.lb) for step in full.steps}
    assert {name: of for name, of in figures.items() if of != (None, None)} == TABLE
    # The notebooks of two stages score the rows of the second stage alone.
    on_stage_2 = {step.name for step in full.steps if step.published.rows == "stage_2"}
    assert on_stage_2 == {"9_panels_5u", "9_statistics_5u", "9_eeg_panels_5u"}


def test_every_fixed_blend_has_an_optimised_one(full: Ladder) -> None:
    blends = {step.name: step.blend for step in full.steps if step.blend is not None}
    fixed = {name.removesuffix("_fixed") for name in blends if name.endswith("_fixed")}
    assert fixed == {name.removesuffix("_optimised") for name in blends if name not in fixed} - {
        f"{name}_fixed" for name in fixed
    }
    assert len(fixed) == 8
    assert full.members("5_ensemble_fixed") == full.members("5_ensemble_optimised")


@pytest.mark.parametrize(
    ("step", "size"),
    [
        ("1_panels", (400, 300)),
        ("3_input_ensemble", (400, 600)),
        ("4_eeg_panels", (512, 512)),
        ("6_panels", (400, 600)),
        ("transformer", (224, 224)),
        ("one_eeg", (400, 856)),
    ],
)
def test_images_have_the_published_sizes(full: Ladder, step: str, size: tuple[int, int]) -> None:
    assert image_size_of(full.experiments()[step].input) == size


def test_models_and_epochs_are_the_published_ones(full: Ladder) -> None:
    models = {name: e.model.name for name, e in full.experiments().items()}
    assert {models[f"{n}_{view}"] for n, view in ((1, "panels"), (6, "panels"))} == {
        "tf_efficientnet_b2"
    }
    assert models["7_panels"] == "tf_efficientnet_b4"
    assert models["7_statistics"] == "tf_efficientnet_b2"
    assert {models[name] for name in models if name[0] in "89"} == {"tf_efficientnet_b0"}
    for name, experiment in full.experiments().items():
        epochs = [stage.epochs for stage in experiment.training.stages]
        assert epochs == ([8] if name[0] == "8" else [6, 6] if name[0] == "9" else epochs)
        assert sum(epochs) == {"8": 8, "9": 12}.get(name[0], 6)
        assert experiment.training.checkpoint == "last"
        assert experiment.training.batch_size == 32


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, below in value.items():
            yield from leaves(below, f"{path}.{name}".lstrip("."))
    else:
        yield path, value


# step: the one thing that it changes.
ONE_FACTOR = {
    "one_schedule": {"training.schedule"},
    "one_percentiles": {"input.views"},
    "one_log_votes": {"training.stages.loss"},
    "one_cutmix": {"training.stages.augment.cutmix"},
    "one_cutmix_time": {"training.stages.augment.cutmix.axis"},
    "one_global": {"input.normalisation"},
    "one_capped_votes": {"training.stages.loss"},
    "one_mosaic": {"training.stages.augment.mosaic"},
    "one_two_stages": {"training.stages"},
    "one_threshold": {"training.stages.threshold"},
    "one_unanimous": {"training.stages.unanimous_from"},
    "one_eeg": {"input.views"},
}


@pytest.mark.parametrize("step", ONE_FACTOR)
@pytest.mark.parametrize("size", ["full", "small"])
def test_one_factor_chain_changes_one_thing_per_step(
    step: str, size: str, request: pytest.FixtureRequest
) -> None:
    ladder: Ladder = request.getfixturevalue(size)
    before = ladder.step(step).before
    assert before is not None
    changed = differences(
        canonical(ladder.experiments()[before]), canonical(ladder.experiments()[step])
    )
    if step == "one_eeg":
        # A source comes with its recipe, and with the height that its view is brought to.
        changed = {path for path in changed if path != "input.height"}
        changed = {path for path in changed if path.split(".")[1] != "eeg"}
    if step == "one_schedule" and size == "small":
        # The overlay's rate falls in every experiment.
        assert changed == set()
        return
    assert changed == ONE_FACTOR[step]


def differences(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Paths that differ; stages are compared one by one if there are equally many."""
    stages = [described["training"].pop("stages") for described in (before, after)]
    changed = different(before, after, "")
    if len(stages[0]) != len(stages[1]):
        return changed | {"training.stages"}
    for first, second in zip(*stages, strict=True):
        changed |= different(first, second, "training.stages")
    return changed


def different(before: Any, after: Any, path: str) -> set[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        names = before.keys() | after.keys()
        return {
            place
            for name in names
            for place in different(before.get(name), after.get(name), f"{path}.{name}".lstrip("."))
        }
    return set() if before == after else {path}


def test_two_stages_train_as_long_as_one(full: Ladder) -> None:
    one, two = (full.experiments()[name].training for name in ("one_mosaic", "one_two_stages"))
    assert sum(stage.epochs for stage in one.stages) == sum(stage.epochs for stage in two.stages)


def test_rules_of_readme_and_notebooks_differ_only_in_the_rule(full: Ladder) -> None:
    for view in ("panels", "statistics", "eeg_panels", "eeg_statistics"):
        first, second = (full.experiments()[f"9_{view}_{rule}"] for rule in ("4", "5u"))
        rule = {"training.stage_threshold": 5, "training.unanimous_from": 4, "name": second.name}
        assert replace_values(first, rule) == second


def test_all_steps_share_two_packs(full: Ladder, small: Ladder) -> None:
    assert [name for name, _ in sources_of(full)] == ["kaggle", "eeg"]
    assert [recipe for _, recipe in sources_of(full)] == [recipe for _, recipe in sources_of(small)]


def test_small_models_can_be_built(small: Ladder) -> None:
    built = set()
    for experiment in small.experiments().values():
        key = experiment.model, image_size_of(experiment.input)
        if key not in built:
            build_model(*key)
            built.add(key)
    assert len(built) < 10


def test_full_size_models_can_be_built_without_their_weights(full: Ladder) -> None:
    sizes: dict[str, tuple[int, int]] = {}
    for experiment in full.experiments().values():
        size = image_size_of(experiment.input)
        sizes[experiment.model.name] = min(size, sizes.get(experiment.model.name, size))
    assert sorted(sizes) == [
        *("tf_efficientnet_b0", "tf_efficientnet_b2", "tf_efficientnet_b4"),
        "vit_small_patch16_224",
    ]
    for name, size in sizes.items():
        build_model(ModelConfig(name=name, pretrained=False), size)


def test_overlay_keeps_what_distinguishes_the_steps(full: Ladder, small: Ladder) -> None:
    for name, experiment in full.experiments().items():
        training = small.experiments()[name].training
        assert training.stages == experiment.training.stages
        assert training.loss == experiment.training.loss
        assert training.augment == experiment.training.augment
    distinct = {trial_key(experiment) for experiment in small.experiments().values()}
    assert len(distinct) < len(small.experiments())


def space_of(**values: Any) -> Any:
    space = load_space(FILES[0])
    return space.model_copy(update={"experiment": replace_values(space.experiment, values)})


def test_an_overlay_scales_learning_rates_and_sizes() -> None:
    stages = [{"learning_rate": 0.01}, {}]
    space = space_of(**{"training.stages": stages, "training.learning_rate": 1e-3})
    scale = Scale(learning_rate_factor=3, size=(8, 9), height=7, values={"training.seed": 5})
    made = scaled(space, scale, "a.yaml").experiment
    assert made.training.learning_rate == pytest.approx(3e-3)
    assert made.training.stages[0].learning_rate == pytest.approx(0.03)
    assert made.training.stages[1].learning_rate is None
    assert (made.training.seed, made.input.size, made.input.height) == (5, None, None)
    sized = scaled(space_of(**{"input.size": [4, 4], "input.height": 3}), scale, "a").experiment
    assert (sized.input.size, sized.input.height) == ((8, 9), 7)


def test_model_missing_from_the_overlay_is_refused() -> None:
    scale = read_scale(SMALL)
    with pytest.raises(ConfigError, match="must have every model") as caught:
        scaled(space_of(**{"model.name": "resnet50"}), scale, "a.yaml")
    assert re.search(r"got resnet50, in a\.yaml", str(caught.value))


def test_unknown_path_in_an_overlay_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown key input\.pol .*the overlay on a\.yaml"):
        scaled(space_of(), Scale(values={"input.pol": [2, 2]}), "a.yaml")


def test_experiments_are_different(full: Ladder) -> None:
    assert len({trial_key(made) for made in full.experiments().values()}) == len(FILES)
