import optuna
import pytest

from hms_ray.config.conditions import n_points, points
from hms_ray.config.loading import validate_space
from hms_ray.config.space import Space
from hms_ray.errors import ConfigError
from hms_ray.search.distributions import (
    describe,
    distributions,
    make_sampler,
    resolve,
    trial_key,
)

NOISY_THEN_GOOD = [
    {"name": "noisy", "rows": "below_threshold"},
    {"name": "good", "rows": "at_least_threshold"},
]


def make_space(search: dict, **others: object) -> Space:
    # As a study stored it: a parameter may be without effect.
    return validate_space({"parameters": search, **others}, "test", stored=True)


def test_each_parameter_type_has_its_distribution() -> None:
    space = make_space(
        {
            "training.loss": {"values": ["kl", "kl_log_votes"]},
            "training.stages": {"values": {"one": [{"rows": "all"}], "two": NOISY_THEN_GOOD}},
            "training.batch_size": {"min": 8, "max": 64, "log": True},
            "training.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True},
        }
    )
    assert distributions(space) == {
        "training.loss": optuna.distributions.CategoricalDistribution(["kl", "kl_log_votes"]),
        "training.stages": optuna.distributions.CategoricalDistribution(["one", "two"]),
        "training.batch_size": optuna.distributions.IntDistribution(8, 64, log=True),
        "training.learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
    }
    assert list(distributions(space)) == list(space.parameters)


def test_point_replaces_values_and_labels() -> None:
    space = make_space(
        {
            "training.stages": {"values": {"one": [{"rows": "all"}], "two": NOISY_THEN_GOOD}},
            "training.learning_rate": {"min": 1e-4, "max": 1e-2},
        }
    )
    experiment = resolve(space, {"training.stages": "two", "training.learning_rate": 0.003})
    assert [stage.rows for stage in experiment.training.stages] == [
        "below_threshold",
        "at_least_threshold",
    ]
    assert experiment.training.learning_rate == 0.003
    assert experiment.input == space.experiment.input


def test_values_that_are_invalid_together_are_named() -> None:
    space = make_space(
        {
            "model.pretrained": {"values": [True, False]},
            "model.weights_file": {"values": {"none": None, "given": "b0.pt"}},
        }
    )
    point = {"model.pretrained": False, "model.weights_file": "given"}
    with pytest.raises(ConfigError, match="weights_file needs pretrained") as caught:
        resolve(space, point)
    assert "pretrained=False weights_file=given" in str(caught.value)


def test_path_of_weights_is_made_absolute(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space = make_space({}, experiment={"model": {"weights_file": "b0.pt"}})
    assert resolve(space, {}).model.weights_file == str(tmp_path / "b0.pt")


def test_experiments_with_equal_training_share_a_key() -> None:
    # One stage over all rows uses no threshold, so its value changes nothing.
    space = make_space({"training.stage_threshold": {"values": [4, 10]}})
    first, second = (resolve(space, point) for point in points(space))
    assert first != second
    assert trial_key(first) == trial_key(second)
    other = resolve(make_space({"training.seed": {"values": [1]}}), {"training.seed": 1})
    assert trial_key(other) != trial_key(first)


def test_points_are_counted_and_listed() -> None:
    space = make_space(
        {
            "training.loss": {"values": ["kl", "kl_log_votes"]},
            "training.stage_threshold": {"min": 4, "max": 6},
        }
    )
    listed = list(points(space))
    assert n_points(space) == len(listed) == 6
    assert {(p["training.loss"], p["training.stage_threshold"]) for p in listed} == {
        (loss, votes) for loss in ("kl", "kl_log_votes") for votes in (4, 5, 6)
    }
    assert n_points(make_space({})) == 1
    assert list(points(make_space({}))) == [{}]
    assert n_points(make_space({"training.learning_rate": {"min": 1e-4, "max": 1e-2}})) is None


def test_point_as_text() -> None:
    point = {"training.loss": "kl", "training.learning_rate": 0.00131313}
    assert describe(point) == "loss=kl learning_rate=0.00131"


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_draw_depends_on_seed_and_number_only(sampler: str) -> None:
    def draw(seed: int, number: int) -> dict:
        space = make_space(
            {"training.learning_rate": {"min": 1e-4, "max": 1e-2}},
            method=sampler,
            seed=seed,
        )
        study = optuna.create_study(sampler=make_sampler(space, number))
        return study.ask(distributions(space)).params

    assert draw(0, 3) == draw(0, 3)
    assert draw(0, 3) != draw(0, 4)
    assert draw(0, 3) != draw(1, 3)
