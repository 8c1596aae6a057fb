from typing import Any

import pytest
from torch import nn

from hms_ray.config.experiment import ModelConfig
from hms_ray.config.loading import validate_space
from hms_ray.config.space import Space
from hms_ray.config.values import replace_values
from hms_ray.dataset.prepare import Prepared, prepare
from hms_ray.errors import ConfigError, ModelError
from hms_ray.experiment.cache_key import cache_key_inputs
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.preflight import preflight
from tests.competition_folder import write_competition_folder
from tests.refused import refusal


def make_space(search: dict[str, Any], **training: Any) -> Space:
    experiment = {
        "data": {"n_folds": 3},
        "input": {"downsample": [4, 4]},
        "model": {"name": "test_efficientnet", "pretrained": False, "drop_path": 0.0},
        "training": training,
    }
    return validate_space({"experiment": experiment, "parameters": search}, "test")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("preflight")
    data = write_competition_folder(folder / "data", eegs=True)
    return prepare(data, make_space({}).experiment, folder / "results")


STAGES = [{"rows": "below_threshold"}, {"rows": "at_least_threshold"}]


def test_valid_space_passes_and_builds_each_model_once(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[tuple[str, tuple[int, int]]] = []

    def build(config: ModelConfig, size: tuple[int, int], n_channels: int) -> nn.Module:
        built.append((config.name, size))
        return nn.Identity()

    monkeypatch.setattr("hms_ray.experiment.preflight.build_model", build)
    search = {
        "training.stage_threshold": {"values": [4, 10]},
        "model.name": {"values": ["test_efficientnet", "test_resnet"]},
        "input.views": {"values": {"one": ["panels"], "both": ["panels", "statistics"]}},
    }
    preflight(make_space(search, stages=STAGES), prepared.rows())
    assert built == [
        ("test_efficientnet", (100, 75)),
        ("test_resnet", (100, 75)),
        ("test_efficientnet", (100, 150)),
    ]


def test_shared_batch_statistics_on_cpus_are_refused(prepared: Prepared) -> None:
    rule = "training.sync_batchnorm needs GPUs in a group of several workers"
    refused = {"got": "2 workers on CPUs", "fix": "Set training.sync_batchnorm: false"}
    space = make_space({"training.sync_batchnorm": {"values": [False, True]}})
    with refusal(ConfigError, rule, **refused):
        preflight(space, prepared.rows(), "cpu", 2)
    preflight(space, prepared.rows(), "cpu")
    experiment = replace_values(space.experiment, {"training.sync_batchnorm": True})
    with refusal(ConfigError, rule, **refused):
        cache_key_inputs(experiment, prepared, 0, Placement(world_size=2))
    placed = Placement(world_size=1), Placement(world_size=2, device_class="cuda")
    same = [
        cache_key_inputs(experiment, prepared, 0, place)
        == cache_key_inputs(space.experiment, prepared, 0, place)
        for place in placed
    ]
    assert same == [True, False], "one worker has all rows of a batch"


def test_models_are_built_for_recipes_without_a_pack(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "hms_ray.experiment.preflight.build_model",
        lambda config, size, n_channels: built.append(size) or nn.Identity(),  # type: ignore[func-returns-value]
    )
    search = {
        "input.views": {
            "values": {"eeg": ["panels", "eeg panels"], "raw": ["raw signals", "panels"]}
        }
    }
    preflight(make_space(search), prepared.rows())
    assert built == [(100, 75), (100, 75 + 256), (18, 5000 + 75)]


@pytest.mark.parametrize(
    ("path", "choice", "error", "match"),
    [
        ("model.name", "test_eficientnet", ModelError, "test_efficientnet"),
        (
            "model",
            {"given": {"name": "test_resnet", "weights_file": "."}},
            ModelError,
            r"file for each model: test_resnet\.r160_in1k\.safetensors, got no weights files",
        ),
        ("input.downsample", {"odd": [7, 7]}, ConfigError, "input.downsample"),
        ("training.stage_threshold", 99, ConfigError, "at_least_threshold 99"),
        (
            "input",
            {"eeg": {"views": ["eeg panels"], "eeg": {"downsample": [7, 7]}}},
            ConfigError,
            r"input\.eeg\.downsample must divide a window of 128 frequencies x 256 times",
        ),
    ],
)
def test_invalid_searched_value_is_refused(
    prepared: Prepared, path: str, choice: Any, error: type[Exception], match: str
) -> None:
    choices = choice if isinstance(choice, dict) else [choice]
    space = make_space({path: {"values": choices}}, stages=STAGES)
    with pytest.raises(error, match=match):
        preflight(space, prepared.rows())


def test_images_too_narrow_for_mosaics_are_refused(prepared: Prepared) -> None:
    stages = [STAGES[0], {**STAGES[1], "augment": {"mosaic": {}}}]
    search = {"input.size": {"values": {"wide": [32, 8], "narrow": [32, 3]}}}
    with pytest.raises(ConfigError, match="a mosaic needs at least 4 columns in each view, got 3"):
        preflight(make_space(search, stages=stages), prepared.rows())
    preflight(make_space(search, stages=STAGES), prepared.rows())
    sizes = {"input.size": [32, 3], "input.pad": [32, 32]}
    padded = replace_values(make_space({}, stages=stages).experiment, sizes)
    with pytest.raises(ConfigError, match="a mosaic needs at least 4 columns in each view, got 3"):
        # Mosaics are made before images are padded.
        preflight(Space(experiment=padded), prepared.rows())
