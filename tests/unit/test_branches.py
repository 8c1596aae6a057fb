"""Several encoders, one head: configuration, numbers, training, and all commands."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from hms_ray.blend.export import ExportOptions, export
from hms_ray.blend.submit import submit
from hms_ray.config.experiment import Experiment, ModelConfig, canonical
from hms_ray.config.loading import validate_space
from hms_ray.config.values import replace_values
from hms_ray.dataset.sources import sources_for
from hms_ray.errors import ConfigError, ModelError
from hms_ray.experiment.bench import Variant
from hms_ray.experiment.cache_key import cache_key_inputs, require_planned
from hms_ray.experiment.disk_use import _weights_bytes
from hms_ray.experiment.older_folds import not_reused
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.preflight import image_sizes_of, preflight
from hms_ray.experiment.run import plan_folds
from hms_ray.ladder.ablation import switches
from hms_ray.ladder.scale import Scale, scaled
from hms_ray.predict.submit_trial import SubmitOptions
from hms_ray.search.distributions import resolve, trial_key
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.identity import space_identity
from hms_ray.train.batches import plan_epoch
from hms_ray.train.checkpoint import load_weights
from hms_ray.train.images import Images
from hms_ray.train.loop import train_fold
from hms_ray.train.model import build_model
from hms_ray.train.model_images import as_tuple
from hms_ray.train.parameter_groups import parameter_groups
from hms_ray.train.process import Process
from hms_ray.train.speed import measure_fold
from hms_ray.train.windows import open_sources
from tests.fold_data import all_sources, example_experiment, example_fold
from tests.refused import refusal
from tests.trained_study import TrainedStudy, train_study, write_test_set

pytestmark = pytest.mark.usefixtures("one_process")

DATA = all_sources(example_fold(n_train=31, n_valid=11))
PLACEMENT = Placement(world_size=1)
SMALL: dict[str, Any] = {"pretrained": False, "drop_path": 0.0}
TWO: list[dict[str, Any]] = [
    {"views": ["panels"], "name": "test_resnet", **SMALL},
    {
        "views": ["eeg panels", "raw signals"],
        "name": "test_efficientnet",
        "size": [32, 48],
        **SMALL,
    },
]


def experiment_of(branches: Any, inputs: dict[str, Any] | None = None, **other: Any) -> Experiment:
    described = {"input": inputs or {}, "model": {"branches": branches, "dropout": 0.0}, **other}
    return validate_space({"experiment": described}, "test").experiment


def with_branches(branches: Any, **training: Any) -> Experiment:
    """Of the rows of ``DATA``."""
    made = example_experiment(**training).training.model_dump()
    return experiment_of(branches, training=made)


@pytest.fixture
def frozen(weights_file: Path) -> list[dict[str, Any]]:
    """Two branches, the first one with pretrained weights that stay."""
    still = {"pretrained": True, "weights_file": str(weights_file), "frozen": True}
    return [{**TWO[0], "name": "test_efficientnet", **still}, TWO[1]]


UNFIT: dict[str, tuple[dict[str, Any], str, str]] = {
    "empty": ({"model": {"branches": []}}, "model.branches", "at least 1 item"),
    "no views": (
        {"model": {"branches": [{"views": []}]}},
        "model.branches.0.views",
        "at least 1 item",
    ),
    "missing views": ({"model": {"branches": [{}]}}, "model.branches.0.views", "required"),
    "bad view": (
        {"model": {"branches": [TWO[0], {"views": ["raw panels"]}]}},
        "model.branches.1.views",
        "a picture of raw must be one of signals",
    ),
    "missing recipe": (
        {"model": {"branches": [TWO[0], {"views": ["eeg.centre panels"]}]}},
        "",
        "model.branches.1: input.recipes.eeg must have the recipe centre",
    ),
    "views twice": (
        {"model": {"branches": TWO}, "input": {"views": ["statistics"]}},
        "",
        "input.views has no effect with model.branches, each of which has its own views; set it",
    ),
    "size": ({"model": {"branches": TWO}, "input": {"size": [8, 8]}}, "", "input.size has no eff"),
    "height": ({"model": {"branches": TWO}, "input": {"height": 8}}, "", "input.height has no"),
    "pad": ({"model": {"branches": TWO}, "input": {"pad": [900, 900]}}, "", "input.pad has no"),
    "name": (
        {"model": {"branches": TWO, "name": "test_vit"}},
        "model",
        "name has no effect with branches, each of which has its own name; set it there, and omit",
    ),
    "pretrained": ({"model": {"branches": TWO, "pretrained": False}}, "model", "pretrained has no"),
    "drop_path": ({"model": {"branches": TWO, "drop_path": 0.1}}, "model", "drop_path has no"),
    "pooling": ({"model": {"branches": TWO, "pooling": "gem"}}, "model", "pooling has no effect"),
    "frozen": (
        {"model": {"branches": [{**TWO[0], "frozen": True}]}},
        "model.branches.0",
        "frozen needs pretrained: true",
    ),
    "weights_file": (
        {"model": {"branches": [{**TWO[0], "weights_file": "a.pt"}]}},
        "model.branches.0",
        "weights_file needs pretrained: true",
    ),
    "elsewhere": (
        {"model": {"branches": [{**TWO[0], "name": "a:f"}]}},
        "model.branches.0",
        "name of a branch must be a model of timm, got a:f",
    ),
    "cutmix": (
        {"model": {"branches": TWO}, "training": {"augment": {"cutmix": {}}}},
        "",
        "have images of different widths; use mixup, or set cutmix: null",
    ),
    "mosaic": (
        {
            "model": {"branches": TWO},
            "training": {"stages": [{"epochs": 2, "augment": {"mosaic": {"epochs": 1}}}]},
        },
        "",
        "augment.mosaic cuts one image",
    ),
    "sign_flip": (
        {"model": {"branches": TWO[:1]}, "training": {"augment": {"sign_flip": 0.5}}},
        "",
        "augment.sign_flip needs a view of raw signals",
    ),
    "shift": (
        {"model": {"branches": TWO}, "training": {"augment": {"window_shift_s": 5}}},
        "",
        "input.eeg.margin_s must be at least the largest augment.window_shift_s",
    ),
}


@pytest.mark.parametrize("name", list(UNFIT))
def test_unfit_branches_are_refused_when_the_file_is_read(name: str) -> None:
    experiment, place, text = UNFIT[name]
    with pytest.raises(ConfigError) as caught:
        validate_space({"experiment": experiment}, "test")
    assert text in str(caught.value)
    assert f"experiment.{place}".rstrip(".") in str(caught.value)


def test_the_key_has_the_branches_in_their_order_and_no_unused_value() -> None:
    plain = canonical(Experiment())
    assert "branches" not in plain["model"]
    described = canonical(experiment_of(TWO))
    assert set(described["model"]) == {"branches", "dropout"}
    assert [one["name"] for one in described["model"]["branches"]] == [one["name"] for one in TWO]
    assert not {"views", "size", "height", "pad"} & described["input"].keys()
    assert {"eeg", "raw", "normalisation"} <= described["input"].keys()
    assert canonical(experiment_of(TWO[::-1])) != described
    whole = experiment_of(TWO)
    for path, value in (("dropout", 0.1), ("output", "sigmoid"), ("head", "per_tier")):
        assert canonical(replace_values(whole, {f"model.{path}": value})) != described, path
    for change in ({"size": [32, 64]}, {"height": 9}, {"pooling": "gem"}, {"drop_path": 0.1}):
        assert canonical(experiment_of([TWO[0], {**TWO[1], **change}])) != described, change
    assert "eeg" not in canonical(experiment_of(TWO[:1]))["input"]


def test_names_of_recipes_change_no_key() -> None:
    def keyed(name: str) -> dict[str, Any]:
        views = [f"eeg.{name} panels"]
        recipes = {"eeg": {name: {"centre_s": 10}}}
        return canonical(experiment_of([TWO[0], {**TWO[1], "views": views}], {"recipes": recipes}))

    assert keyed("one") == keyed("other")
    assert "eeg.1" in keyed("one")["input"]


def test_the_example_of_the_page_is_sound() -> None:
    page = (Path(__file__).parents[2] / "search_spaces" / "README.md").read_text()
    text = page.partition("## Several encoders, one head\n\n```yaml\n")[2].partition("```")[0]
    experiment = validate_space(yaml.safe_load(text), "page").experiment
    assert image_sizes_of(experiment) == ((256, 384), (384, 512))


def test_sources_of_all_branches_are_packed() -> None:
    experiment = experiment_of(TWO)
    assert list(experiment.sources) == ["kaggle", "eeg", "raw"]
    values = {"a": TWO[:1], "b": [{**TWO[0], "views": ["pairs panels"]}]}
    space = validate_space(
        {"experiment": {}, "parameters": {"model.branches": {"values": values}}}, "test"
    )
    assert [source[0] for source in sources_for(space)] == ["kaggle", "pairs"]


def test_logits_are_one_linear_layer_of_all_features() -> None:
    config = experiment_of(TWO).model
    model = build_model(config, ((64, 48), (32, 48))).eval()
    images = torch.randn(3, 1, 64, 48), torch.randn(3, 1, 32, 48)
    with torch.inference_mode():
        features = [
            encoder(image).numpy() for encoder, image in zip(model.encoders, images, strict=True)
        ]
        weight, bias = (value.numpy() for value in model.head.parameters())
        expected = np.concatenate(features, axis=1) @ weight.T + bias
        np.testing.assert_allclose(model(images).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_frozen_encoders_keep_weights_and_batch_statistics(
    frozen: list[dict[str, Any]], weights_file: Path
) -> None:
    experiment = with_branches(frozen, epochs=2, ema=0.5, learning_rate=0.05)
    result = train_fold(experiment, DATA, 0, Process())
    source = torch.load(weights_file)
    own = {
        name.removeprefix("encoders.0."): value
        for name, value in result.weights.items()
        if name.startswith("encoders.0.")
    }
    assert {"conv_stem.weight", "bn1.running_mean", "bn1.num_batches_tracked"} <= own.keys()
    for name, value in own.items():
        # Images have one channel.
        expected = source[name].sum(1, keepdim=True) if name == "conv_stem.weight" else source[name]
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6, msg=name)
    torch.manual_seed(0)
    first = build_model(experiment.model, ((64, 64), (32, 48))).state_dict()
    for name in ("encoders.1.bn1.running_mean", "encoders.1.conv_stem.weight", "head.weight"):
        assert not torch.allclose(result.weights[name], first[name]), name


def test_frozen_encoders_stay_in_evaluation_mode(frozen: list[dict[str, Any]]) -> None:
    model = build_model(experiment_of(frozen).model, ((64, 64), (32, 48)))
    still, trained = model.encoders
    for number in range(3):
        if number:
            model.eval()
            model.train()
        assert not any(layer.training for layer in still.modules())
        assert all(layer.training for layer in trained.modules())
    assert not any(value.requires_grad for value in still.parameters())
    assert all(value.requires_grad for value in trained.parameters())


def images_of(experiment: Experiment) -> Images:
    packs = {name: DATA.sources[name].pack for name in experiment.sources}
    opened = open_sources(packs, torch.device("cpu"))
    branches = experiment.branch_inputs
    return Images(DATA, opened, experiment.joint_input, torch.float32, branches=branches)


def first_batch(images: Images, experiment: Experiment) -> tuple[Tensor, ...]:
    training = experiment.training
    (stage,) = training.resolved_stages()
    batch = plan_epoch(DATA, DATA.train, training, stage, images.joined, (0, 0, 0), Process())[0]
    return as_tuple(next(images.for_training([batch])))


def test_each_branch_has_its_own_image() -> None:
    experiment = with_branches([*TWO, {**TWO[0], "pad": [80, 70]}])
    images = images_of(experiment)
    assert images.sizes == ((64, 64), (32, 48), (80, 70))
    made = as_tuple(next(images.for_rows([DATA.valid])))
    assert [image.shape[2:] for image in made] == [(64, 64), (32, 48), (80, 70)]
    for branch, image in zip(experiment.branch_inputs, made, strict=True):
        whole = experiment.model_copy(update={"model": ModelConfig(), "input": branch})
        (alone,) = as_tuple(next(images_of(whole).for_rows([DATA.valid])))
        assert torch.equal(image, alone)


def test_augmentations_are_the_same_for_all_branches() -> None:
    augment = {
        "hemisphere_flip": 0.5,
        "time_flip": 0.5,
        "channel_drop": 0.5,
        "time_mask": {"probability": 0.5},
        "mixup": {"probability": 1.0},
    }
    experiment = with_branches([TWO[0], TWO[0]], augment=augment)
    images = images_of(experiment)
    first, second = first_batch(images, experiment)
    assert torch.equal(first, second)
    (plain,) = as_tuple(next(images.for_rows([DATA.train[:12]])))[:1]
    assert not torch.equal(first, plain)


def test_head_and_layers_have_their_own_rates(frozen: list[dict[str, Any]]) -> None:
    experiment = with_branches(frozen, head_rate=4.0, layer_decay=0.5)
    model = build_model(experiment.model, ((64, 64), (32, 48)))
    groups = parameter_groups(model, experiment.training)
    scale = {id(value): group["lr_scale"] for group in groups for value in group["params"]}
    assert scale.keys() == {id(value) for value in model.parameters()}
    names = dict(model.named_parameters())
    assert scale[id(names["head.weight"])] == 4.0
    assert scale[id(names["encoders.1.conv_head.weight"])] == 0.5
    assert scale[id(names["encoders.1.conv_stem.weight"])] < 0.25


def test_preflight_names_the_branch(prepared_rows: Any) -> None:
    def checked(*branches: dict[str, Any]) -> None:
        space = validate_space(
            {
                "experiment": {
                    "data": {"n_folds": 2},
                    "input": {"downsample": [10, 10]},
                    "model": {"branches": branches},
                }
            },
            "test",
        )
        preflight(space, prepared_rows)

    checked(TWO[0])
    with refusal(ModelError, "accept images of", where="test_vit, model.branches.1"):
        checked(TWO[0], {**TWO[1], "name": "test_vit", "size": [33, 47]})
    with refusal(
        ModelError, "model.branches.1.name must be a timm model", where="model.branches.1"
    ):
        checked(TWO[0], {**TWO[1], "name": "test_resent"})
    rule = "model.branches.0.pooling"
    with refusal(ModelError, rule, where="model.branches.0", fix="own"):
        checked({**TWO[0], "name": "test_vit", "size": [32, 32], "pooling": "gem"})
    with refusal(ConfigError, "input.raw.rows must divide", got="7"):
        space = validate_space(
            {"experiment": {"input": {"raw": {"rows": 7}}, "model": {"branches": TWO}}}, "test"
        )
        preflight(space, prepared_rows)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> TrainedStudy:
    """A trained study of two branches in two stages; the second branch uses a named recipe."""
    branches = [
        {**TWO[0], "views": ["panels"]},
        {**TWO[1], "views": ["eeg.short panels"], "size": [64, 64]},
    ]
    values = {
        "model": {"branches": branches},
        "input.recipes.eeg": {
            "short": {"centre_s": 10, "normalisation": "global", "downsample": [4, 4]}
        },
        "training.stages": [
            {"name": "first", "epochs": 1, "learning_rate": 0.01},
            {"name": "second", "epochs": 1},
        ],
        "training.augment": {"mixup": {"probability": 0.5}, "hemisphere_flip": 0.5},
    }
    return train_study(tmp_path_factory.mktemp("branches"), values=values, name="branches")


@pytest.fixture(scope="module")
def prepared_rows(study: TrainedStudy) -> Any:
    return study.prepared.rows()


def test_submissions_of_study_and_export_are_equal(study: TrainedStudy, tmp_path: Path) -> None:
    data, out = write_test_set(tmp_path / "data"), tmp_path / "export"
    options = SubmitOptions(data_dir=data, results=study.results, out=tmp_path / "a.csv")
    submit("branches", options)
    export("branches", ExportOptions(out=out, results=study.results, wheel=False))
    submit(str(out), replace(options, out=tmp_path / "b.csv", results=tmp_path / "none"))
    first, second = ((tmp_path / name).read_text() for name in ("a.csv", "b.csv"))
    assert first == second
    assert first.count("\n") == 4


def test_folds_predict_their_rows_again_and_share_stages(study: TrainedStudy) -> None:
    tasks = plan_folds(study.folder.space().experiment, study.prepared, study.results, PLACEMENT)
    store = FoldStore(study.results)
    for task in tasks:
        first = task.truncated(1)
        assert store.has(first.key)
        assert set(load_weights(store.read(first.key).weights)) == set(
            load_weights(store.read(task.key).weights)
        )
        require_planned(task.experiment, task.key_inputs)
    older = {**tasks[0].key_inputs, "versions": {**tasks[0].key_inputs["versions"], "timm": "0"}}
    note = not_reused([replace(tasks[0], key_inputs=older, key="0" * 64)])
    assert note is not None
    assert "(now 0)" in note


def test_disk_use_is_that_of_the_stored_weights(study: TrainedStudy) -> None:
    experiment = study.folder.space().experiment
    task = plan_folds(experiment, study.prepared, study.results, PLACEMENT)[0]
    stored = load_weights(FoldStore(study.results).read(task.key).weights)
    n_bytes = sum(value.numel() * value.element_size() for value in stored.values())
    assert _weights_bytes(experiment) == n_bytes


def test_weights_of_every_branch_are_part_of_the_key(
    study: TrainedStudy, weights_file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.pt"
    torch.save({name: value + 1 for name, value in torch.load(weights_file).items()}, other)
    moved = tmp_path / "moved.pt"
    moved.write_bytes(weights_file.read_bytes())
    base = study.folder.space().experiment

    def keys(file: Path | None) -> tuple[object, ...]:
        values: dict[str, Any] = {"name": "test_efficientnet"}
        if file is not None:
            values |= {"pretrained": True, "weights_file": str(file)}
        changed = replace_values(
            base, {f"model.branches.1.{name}": value for name, value in values.items()}
        )
        space = study.folder.space().model_copy(update={"experiment": changed})
        inputs = cache_key_inputs(changed, study.prepared, 0, PLACEMENT)
        return inputs["weights"], trial_key(changed), space_identity(space)["weights"]

    none, first, second, third = (keys(one) for one in (None, weights_file, other, moved))
    assert none[0] == [None, None]
    assert first[0][0] is None  # type: ignore[index]
    assert first == third
    assert all(len({str(one[part]) for one in (none, first, second)}) == 3 for part in range(3))


def test_paths_of_weights_files_are_made_absolute_and_leave_no_trace(
    frozen: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(frozen[0]["weights_file"])
    monkeypatch.chdir(file.parent)
    named = [{**frozen[0], "weights_file": file.name}, frozen[1]]
    space = validate_space({"experiment": {"model": {"branches": named}}}, "test")
    made = resolve(space, {}).model.branches
    assert made is not None
    assert made[0].weights_file == str(file)
    assert file.name not in str(canonical(space.experiment))
    assert file.name not in str(space_identity(space)["experiment"])
    searched = {"model.branches": {"values": {"a": named, "b": [frozen[1]]}}}
    space = validate_space({"experiment": {}, "parameters": searched}, "test")
    assert file.name not in str(space_identity(space))


def test_images_of_the_trial_are_side_by_side(study: TrainedStudy) -> None:
    from hms_ray.experiment.fold_data import fold_data
    from hms_ray.train.example_images import ExampleImages

    experiment, rows = study.folder.space().experiment, study.prepared.rows()
    data = fold_data(experiment, study.prepared, 0, rows)
    task = plan_folds(experiment, study.prepared, study.results, PLACEMENT)[0]
    record = FoldStore(study.results).record(task.key)
    maker = ExampleImages(experiment, data, 0, record["normalisation"])
    made = maker.of_rows(data.valid)
    assert made.shape == (len(data.valid), 64, 30 + 64)
    assert maker.of_batch(4).images.shape == (4, 64, 30 + 64)
    assert made[:, 40:, :30].any() == False  # noqa: E712 - the lower image ends there
    assert made[:, :40, :30].any()
    assert made[:, :, 30:].any()


def test_the_bench_measures_branches_and_tells_them_apart() -> None:
    speed = measure_fold(with_branches(TWO), DATA, 0, Process(), pass_s=0.01)
    assert speed.image_sizes == ((64, 64), (32, 48))
    key = Variant("a", "", experiment_of(TWO)).speed_key
    for change in ({"size": [64, 48]}, {"name": "test_resnet"}, {"drop_path": 0.1}):
        other = experiment_of([TWO[0], {**TWO[1], **change}])
        assert Variant("a", "", other).speed_key != key, change


def test_overlays_and_ablations_of_a_ladder_reach_every_branch(
    frozen: list[dict[str, Any]],
) -> None:
    space = validate_space({"experiment": {"model": {"branches": frozen}}}, "test")
    overlay = Scale(
        models={"test_efficientnet": "test_resnet"},
        size=(24, 24),
        values={"model.pretrained": False, "model.weights_file": None, "model.drop_path": 0.0},
    )
    branches = scaled(space, overlay, "ladder").experiment.model.branches
    assert branches is not None
    assert [one.name for one in branches] == ["test_resnet", "test_resnet"]
    assert [one.size for one in branches] == [None, (24, 24)]
    assert not any(one.pretrained or one.frozen or one.weights_file for one in branches)
    with refusal(ConfigError, "the overlay must have every model", got="test_efficientnet"):
        scaled(space, overlay.model_copy(update={"models": {"a": "b"}}), "ladder")
    made = {switch.name: switch for switch in switches(space.experiment)}
    off: Callable[[Experiment], dict[str, Any]] = made["branch_0"].off
    without = replace_values(space.experiment, off(space.experiment)).model.branches
    assert without is not None
    assert [one.name for one in without] == ["test_efficientnet"]
    assert without[0].views == ("eeg panels", "raw signals")
