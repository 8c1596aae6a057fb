from typing import Any

import pytest

from hms_ray.config import Space
from hms_ray.config_file import validate_space
from hms_ray.errors import ConfigError, ModelError, TrainingError
from hms_ray.preflight import preflight
from hms_ray.prepare import Prepared, prepare
from tests.competition_folder import write_competition_folder


def make_space(search: dict[str, Any], **training: Any) -> Space:
    experiment = {
        "data": {"n_folds": 3},
        "input": {"pool": [4, 4]},
        "model": {"name": "test_efficientnet", "pretrained": False, "drop_path": 0.0},
        "training": training,
    }
    return validate_space({"experiment": experiment, "search": search}, "test")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("preflight")
    data = write_competition_folder(folder / "data", eegs=True)
    return prepare(data, make_space({}).experiment, folder / "results")


STAGES = [{"rows": "below_threshold"}, {"rows": "at_least_threshold"}]


def test_a_space_that_can_be_trained_passes(prepared: Prepared) -> None:
    space = make_space({"training.stage_threshold": {"choices": [4, 10]}}, stages=STAGES)
    preflight(space, prepared)


@pytest.mark.parametrize(
    ("path", "choice", "error", "said"),
    [
        ("model.name", "test_eficientnet", ModelError, "test_efficientnet"),
        ("input.pool", {"odd": [7, 7]}, ConfigError, "input.pool"),
        ("training.stage_threshold", 99, TrainingError, "99"),
    ],
)
def test_a_searched_value_that_must_fail_is_found(
    prepared: Prepared, path: str, choice: Any, error: type[Exception], said: str
) -> None:
    choices = choice if isinstance(choice, dict) else [choice]
    space = make_space({path: {"choices": choices}}, stages=STAGES)
    with pytest.raises(error, match=said):
        preflight(space, prepared)
