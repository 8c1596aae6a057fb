"""The files of the published ladder, at full size and small."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm

from hms_ray.config.experiment import ModelConfig, canonical
from hms_ray.config.inputs import InputConfig
from hms_ray.config.loading import load_space
from hms_ray.config.values import replace_values
from hms_ray.errors import ConfigError
from hms_ray.experiment.preflight import image_size_of
from hms_ray.ladder.manifest import Published, StepEntry, read_manifest
from hms_ray.ladder.plan import sources_of
from hms_ray.ladder.scale import Scale, read_scale, scaled
from hms_ray.ladder.steps import Ladder, load_ladder
from hms_ray.search.distributions import trial_key
from hms_ray.train.model import build_model

FOLDER = Path(__file__).parents[2] / "search_spaces" / "ladder"
MANIFEST = FOLDER / "ladder.yaml"
SMALL, MEDIUM = FOLDER / "small.yaml", FOLDER / "medium.yaml"
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


def published_steps() -> list[StepEntry]:
    """Steps with published scores, from the one list of published facts."""
    return [entry for entry in read_manifest(MANIFEST).steps if entry.published != Published()]


WITH_RECIPE = {entry.name: entry for entry in published_steps() if entry.published.recipe}

# Not in the publication, or without effect on these experiments.
NOT_PUBLISHED = {
    *("training.seed", "training.precision", "training.deterministic", "training.compile"),
    # Of a OneCycle schedule, which the notebooks never step.
    *("training.warmup", "training.div_factor", "training.final_div_factor"),
    *("data.n_patients", "data.unusable"),
    *("input.downsample", "input.height", "input.size"),
}


@pytest.mark.parametrize("name", WITH_RECIPE)
def test_file_has_every_value_of_the_published_recipe(full: Ladder, name: str) -> None:
    experiment = full.experiments()[name]
    recipe = full.step(name).recipe
    published = canonical(replace_values(experiment, recipe))
    assert differences(canonical(experiment), published) == set()
    # A recipe with all values but those of a guess: nothing else can differ unseen.
    if "training.stages" in recipe:
        paths = {path for path, _ in leaves(canonical(experiment))}
        unseen = {path for path in paths if not any(path.startswith(known) for known in recipe)}
        assert {path for path in unseen if path.split(".")[1] != "eeg"} <= NOT_PUBLISHED


def test_departures_from_the_recipes_are_known(full: Ladder, small: Ladder) -> None:
    def departures(ladder: Ladder) -> dict[str, set[str]]:
        found = {step.name: set(step.departures()) for step in ladder.steps if step.recipe}
        assert found.keys() == WITH_RECIPE.keys()
        return found

    assert set().union(*departures(full).values()) == set()
    medium = departures(load_ladder(MANIFEST, MEDIUM))
    assert medium["8_panels"] == {"data.n_folds"}
    assert medium["1_panels"] == {"data.n_folds", "model.name"}
    assert departures(small)["2_statistics"] == {
        *("data.n_folds", "model.name", "model.pretrained", "model.dropout"),
        *("training.batch_size", "training.learning_rate", "training.schedule"),
    }


@pytest.mark.parametrize("name", WITH_RECIPE)
def test_published_model_is_a_tag_of_timm(name: str) -> None:
    model = WITH_RECIPE[name].published.recipe.get("model.name")
    assert model is None or model in timm.list_pretrained(model.split(".")[0] + "*")


def test_only_two_published_steps_are_without_dropout(full: Ladder) -> None:
    models = {name: made.model for name, made in full.experiments().items()}
    without = {name for name, model in models.items() if model.dropout == model.drop_path == 0}
    assert without == {"2_statistics", "6_panels"}


def test_figures_epochs_and_heads_agree(full: Ladder) -> None:
    measured = 0
    for entry in published_steps():
        of, where = entry.published, entry.name
        if entry.file is None:
            assert of.cv is None, where
            continue
        assert of.cv is not None, where
        head = head_of(FOLDER / entry.file)
        assert f"out-of-fold KL {of.cv:.4f}" in head, where
        assert of.lb is None or f"leaderboard {of.lb:.2f}" in head, where
        if of.last is None or of.best is None:
            continue
        measured += 1
        assert f"{of.best:.4f}" in head, where
        assert f"{of.last:.4f}" in head, where
        assert abs(of.best - of.cv) < 0.004, where
        # The choice of the best evaluation is worth this much.
        assert 0.019 < of.last - of.best < 0.111, where
        # Two evaluations per epoch of the last stage; those of mosaic epochs do not count.
        stage = full.experiments()[entry.name].training.resolved_stages()[-1]
        mosaic = stage.augment.mosaic
        skipped = 0 if mosaic is None else mosaic.epochs
        assert skipped is not None
        assert of.evaluations == 2 * (stage.epochs - skipped), where
    assert measured == 11


def test_notebooks_of_two_stages_score_the_second_stage_alone() -> None:
    entries = published_steps()
    on_stage_2 = {entry.name for entry in entries if entry.published.rows == "stage_2"}
    assert on_stage_2 == {entry.name for entry in entries if entry.name.startswith("9_")}


def head_of(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


GUESSED = {"03_panels_statistics", "10_transformer"} | {
    f"09_eeg_{view}_{rule}" for view in ("panels", "statistics") for rule in ("4", "5_unanimous")
}


@pytest.mark.parametrize("file", [file for file in FILES if file.name < "20"], ids=lambda f: f.stem)
def test_heads_name_what_is_published_and_what_is_a_guess(file: Path) -> None:
    head = head_of(file)
    assert "Published:" in head or "Not published" in head
    assert ("Guess:" in head) == (file.stem in GUESSED)


def test_every_fixed_blend_has_an_optimised_one(full: Ladder) -> None:
    blends = {step.name: step.blend for step in full.steps if step.blend is not None}
    fixed = {name.removesuffix("_fixed") for name in blends if name.endswith("_fixed")}
    optimised = {name.removesuffix("_optimised") for name in blends} - {f"{n}_fixed" for n in fixed}
    parts = {f"{part}_{rule}" for part in ("9_kaggle", "9_eeg") for rule in ("4", "5u")}
    four = {"final_4_four", "final_5u_four"}
    assert fixed - parts - four == optimised
    assert len(optimised) == 8
    assert full.members("5_ensemble_fixed") == full.members("5_ensemble_optimised")


@pytest.mark.parametrize("rule", ["4", "5u"])
def test_step_9_has_its_blends_with_equal_weights(full: Ladder, rule: str) -> None:
    members = {
        f"9_kaggle_{rule}_fixed": ["panels", "statistics"],
        f"9_eeg_{rule}_fixed": ["eeg_panels", "eeg_statistics"],
        f"final_{rule}_four_fixed": ["panels", "statistics", "eeg_panels", "eeg_statistics"],
    }
    for name, views in members.items():
        blend = full.step(name).blend
        assert blend is not None
        assert blend.members == tuple(f"9_{view}_{rule}" for view in views)
        assert blend.fixed_weights == (1 / len(views),) * len(views)
    optimised = full.step(f"final_{rule}_optimised")
    assert optimised.before == f"final_{rule}_four_fixed"
    assert full.members(optimised.name) == full.members(optimised.before)


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


@pytest.mark.parametrize(
    ("step", "changed"),
    [("6_log_votes", {"training.stages.loss"}), ("4_eeg_panels_only", {"input.views"})],
)
def test_steps_with_one_change(full: Ladder, step: str, changed: set[str]) -> None:
    before = full.step(step).before
    assert before in ("1_panels", "4_eeg_panels")
    made = full.experiments()
    assert differences(canonical(made[before]), canonical(made[step])) == changed


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
    assert [source.name for source in sources_of(full)] == ["kaggle", "eeg"]
    assert sources_of(full) == sources_of(small)


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
        *("efficientnet_b0.ra_in1k", "efficientnet_b2.ra_in1k", "efficientnet_b4.ra2_in1k"),
        "vit_small_patch16_224.augreg_in21k_ft_in1k",
    ]
    for name, size in sizes.items():
        build_model(ModelConfig(name=name, pretrained=False), size)


PUBLISHED_CHOICE = ("training.checkpoint=best", "training.next_stage_from=best")


@pytest.mark.parametrize("overlay", [None, SMALL, MEDIUM])
def test_every_step_runs_with_the_published_choice_of_checkpoints(overlay: Path | None) -> None:
    for experiment in load_ladder(MANIFEST, overlay, PUBLISHED_CHOICE).experiments().values():
        stages = experiment.training.resolved_stages()
        assert {stage.checkpoint for stage in stages} == {"best"}


def test_medium_trains_the_published_b0_on_smaller_images(full: Ladder) -> None:
    medium = load_ladder(MANIFEST, MEDIUM)
    for name, experiment in medium.experiments().items():
        whole = full.experiments()[name]
        assert experiment.training == whole.training
        if name == "transformer":
            continue
        assert experiment.model.name == "efficientnet_b0.ra_in1k"
        assert experiment.model.model_dump(exclude={"name"}) == whole.model.model_dump(
            exclude={"name"}
        )
        height, width = image_size_of(whole.input)
        assert image_size_of(experiment.input) == (height // 2, width // 2)
    assert image_size_of(medium.experiments()["1_panels"].input) == (200, 150)
    assert {made.data.n_folds for made in medium.experiments().values()} == {3}


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
    other = scaled(space, Scale(learning_rate=2e-3), "a.yaml").experiment.training
    assert (other.learning_rate, other.stages[0].learning_rate) == pytest.approx((2e-3, 0.02))
    sized = scaled(space_of(**{"input.size": [4, 4], "input.height": 3}), scale, "a").experiment
    assert (sized.input.size, sized.input.height) == ((8, 9), 7)


def test_an_overlay_limits_the_windows_of_all_recipes() -> None:
    wide = {"kind": "stft", "centre_s": 30, "window_samples": 145, "hop_samples": 12}
    recipes = {"pairs": {"wide": wide, "mel": {}}, "raw": {"slow": {"rate_hz": 50, "rows": 4}}}
    views = ["kaggle panels", "eeg panels", "pairs.wide panels", "pairs.mel panels"]
    inputs = {"views": [*views, "raw.slow signals", "raw signals"], "recipes": recipes}
    space = space_of(input={**inputs, "raw": {"rate_hz": 200, "rows": 20}})
    limits = {"kaggle": (40, 30), "eeg": (32, 20), "pairs": (9, 60), "raw": (1, 600)}
    made = scaled(space, Scale.model_validate({"largest": limits}), "a").experiment.input
    assert made.downsample == (4, 10)
    assert made.eeg.downsample == (4, 16)
    # 14 bins x 488 frames and 64 bands x 313 frames, of which 486 and 312 are kept.
    assert (made.recipes.pairs["wide"].downsample, made.recipes.pairs["mel"].downsample) == (
        *((2, 9), (8, 6)),
    )
    kept = [made.recipes.pairs[name].n_frames for name in ("wide", "mel")]
    assert kept == [486, 312]
    # 2,500 and 10,000 samples; blocks of 5 and 20 leave a multiple of the rows.
    assert (made.recipes.raw["slow"].downsample, made.raw.downsample) == ((1, 5), (1, 20))
    height, width = image_size_of(made)
    assert height == 4 * 25
    assert width == 30 + 16 + 54 + 52 + 125 + 25
    assert made.pairs == InputConfig().pairs, "not in use"


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
