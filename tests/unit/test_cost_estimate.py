"""Estimated seconds of folds and spaces, against sums over epochs."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.loading import validate_space
from hms_ray.config.space import ResourcesConfig
from hms_ray.errors import ResourceError
from hms_ray.experiment import bench
from hms_ray.experiment.bench import (
    MAX_MEASURED,
    BenchJob,
    measure_machine,
    measured_variants,
    variants,
)
from hms_ray.experiment.cost_estimate import fold_seconds, mean_trial_seconds, trial_seconds
from hms_ray.train.fold_speed import EpochSpeed, FoldSpeed
from hms_ray.train.process import Process
from tests.refused import refusal

MOSAIC = EpochSpeed(0.5, first_s=(8.0, 9.0, 70.0), later_s=(6.0, 7.0, 8.0), input_share=(0.5,))
PLAIN = EpochSpeed(0.25, first_s=(4.0, 5.0, 6.0), later_s=(2.0, 3.0, 4.0), input_share=(0.5,))
SPEED = FoldSpeed(
    epochs={(0, True): MOSAIC, (0, False): PLAIN, (1, False): PLAIN},
    prepare_s=11.0,
    fit_s=(0.1, 0.2, 0.3),
    restart_s=(0.3, 0.4, 2.0),
    save_s=0.25,
    scoring_first_s=(1.5, 1.5, 9.0),
    scoring_later_s=(1.0, 1.0, 1.0),
    n_cached=1000,
    memory_bytes=0,
    pack_bytes=0,
    image_sizes=((1, 1),),
    precision="float32",
)
SPACE = validate_space(
    {
        "experiment": {
            "model": {"name": "test_vit", "pretrained": False, "drop_path": 0},
            "training": {
                "batch_size": 4,
                "stage_threshold": 5,
                "stages": [
                    {"epochs": 3, "augment": {"mosaic": {"epochs": 1}}},
                    {"rows": "at_least_threshold", "epochs": 2},
                ],
            },
        }
    },
    "test",
)


@pytest.fixture
def rows() -> pd.DataFrame:
    table = pd.DataFrame({"fold": np.arange(30) % 3, "total_votes": 2})
    table.loc[table.index < 12, "total_votes"] = 9
    table[list(TARGET_COLUMNS)] = 1 / 6
    return table


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("n_cached", [1000, 15])
def test_fold_is_the_sum_of_its_epochs(rows: pd.DataFrame, workers: int, n_cached: int) -> None:
    cached = min(1, n_cached / 30)

    def epoch(n: int, draw: float, first: float, later: float, number: int, new: bool) -> float:
        # A rank meets a row for the first time after k epochs with (1 - 1/W)^k.
        unseen = new * (1 if number == 0 else (1 - 1 / workers) ** number)
        cold = cached * unseen + (1 - cached)
        return n * (draw + cold * first + (1 - cold) * later)

    expected = epoch(20, 0.5, 9, 7, 0, True)
    expected += epoch(20, 0.25, 5, 3, 1, True) + epoch(20, 0.25, 5, 3, 2, True)
    # The rows of the second stage were in the first one.
    expected += epoch(8, 0.25, 5, 3, 0, False) + epoch(8, 0.25, 5, 3, 1, False)
    speed = replace(SPEED, n_cached=n_cached)
    found = fold_seconds(SPACE.experiment, speed, rows, 0, workers)
    # Two evaluations per epoch.
    assert found.train_s == pytest.approx(expected + 5 * 2 * 0.4)
    assert found.prepare_s == pytest.approx(11 + 20 * 0.2)
    scored = 10 * 2 * 5
    first = 10 * cached + scored * (1 - cached)
    assert found.score_s == pytest.approx(first * 1.5 + (scored - first) * 1.0)
    # Both stages are stored, and a checkpoint is due each minute.
    seconds = found.train_s + found.score_s
    assert found.store_s == pytest.approx(0.25 * (2 + 4 * min(9, seconds / 60)))
    assert found.total_s == pytest.approx(seconds + found.prepare_s + found.store_s)


@pytest.mark.parametrize(
    ("resources", "n_weights"),
    [
        ({"share_stages": False, "checkpoint_every_s": None}, 1),
        ({"checkpoint_every_s": None}, 2),
        # After each evaluation but the last.
        ({"checkpoint_every_s": 0}, 2 + 4 * 9),
    ],
)
def test_what_is_written_follows_from_the_resources(
    rows: pd.DataFrame, resources: dict[str, Any], n_weights: int
) -> None:
    found = fold_seconds(SPACE.experiment, SPEED, rows, 0, resources=ResourcesConfig(**resources))
    assert found.store_s == pytest.approx(0.25 * n_weights)


def test_passes_of_a_fold_without_a_cache_are_one_kind(rows: pd.DataFrame) -> None:
    found = fold_seconds(SPACE.experiment, replace(SPEED, n_cached=0), rows, 0)
    later = np.median([4, 5, 6, 2, 3, 4]) + 0.25
    mosaic = np.median([8, 9, 70, 6, 7, 8]) + 0.5
    assert found.train_s == pytest.approx(20 * mosaic + (20 + 20 + 8 + 8) * later + 10 * 0.4)


def test_trial_has_all_folds_and_repetitions_have_a_spread(rows: pd.DataFrame) -> None:
    experiment = SPACE.experiment
    folds = [fold_seconds(experiment, SPEED, rows, fold).total_s for fold in range(3)]
    assert trial_seconds(experiment, SPEED, rows) == pytest.approx(sum(folds))
    least, most = (trial_seconds(experiment, SPEED, rows, pick=pick) for pick in (min, max))
    assert least < sum(folds) < most


SEARCHED = {
    "training.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True},
    "training.loss": {"values": ["kl", "kl_log_votes"]},
    "training.stage_threshold": {"values": [4, 10]},
    "model.name": {"values": ["test_vit", "test_vit2"]},
    "training.batch_size": {"values": [2, 4]},
    "input.normalisation": {"values": ["per_image", "global"]},
    "training.stages.0.epochs": {"values": [1, 6]},
}


def test_only_values_that_change_the_speed_are_measured() -> None:
    space = validate_space(
        {"experiment": SPACE.experiment.model_dump(mode="json"), "parameters": SEARCHED}, "test"
    )
    names = [variant.name for variant in measured_variants(variants(space))]
    assert names == [
        "experiment",
        "model.name=test_vit2",
        "training.batch_size=2",
        "input.normalisation=global",
        # With one epoch, mosaic applies in all of them.
        "training.stages.0.epochs=1",
    ]


def test_few_variants_are_measured() -> None:
    batch = {"training.batch_size": {"values": list(range(4, 40))}}
    experiment = SPACE.experiment.model_dump(mode="json")
    space = validate_space({"experiment": experiment, "parameters": batch}, "test")
    every = variants(space)
    assert len(every) == 37
    assert len(measured_variants(every)) == MAX_MEASURED


def test_mean_trial_of_independent_parameters_is_the_mean_over_all_points() -> None:
    space = validate_space(
        {
            "experiment": SPACE.experiment.model_dump(mode="json"),
            "parameters": {
                "training.batch_size": {"values": [4, 8, 16]},
                "training.loss": {"values": ["kl", "kl_log_votes"]},
            },
        },
        "test",
    )
    factors = {"training.batch_size": (1.0, 0.8, 0.5), "training.loss": (1.0, 1.3)}
    every = variants(space)
    seconds = {"experiment": 100.0}
    for path, ratios in factors.items():
        named = [variant.name for variant in every if variant.path == path]
        seconds |= dict(zip(named, (100 * ratio for ratio in ratios), strict=True))
    points = [100 * a * b for a in factors["training.batch_size"] for b in (1.0, 1.3)]
    assert mean_trial_seconds(every, seconds) == pytest.approx(np.mean(points))
    # One that was not measured is left to the others.
    del seconds["training.batch_size=16"]
    assert mean_trial_seconds(every, seconds) == pytest.approx(100 * 0.9 * 1.15)


def test_group_that_does_not_fit_is_refused() -> None:
    job = BenchJob((SPACE.experiment,), None, ResourcesConfig(cpus_per_worker=3))  # type: ignore[arg-type]
    fix = "Request less (--set resources.cpus_per_worker=N"
    with refusal(ResourceError, "must fit on a machine", got="3 CPUs", where="", fix=fix):
        measure_machine(job, 2, 0)


@pytest.mark.parametrize(("max_groups", "n_groups"), [(None, 4), (3, 3), (9, 4)])
def test_as_many_groups_are_measured_as_a_sweep_has(
    monkeypatch: pytest.MonkeyPatch, max_groups: int | None, n_groups: int
) -> None:
    measured: list[int] = []

    def measure(job: BenchJob, n_groups: int, workers: int) -> list[FoldSpeed]:
        measured.append(n_groups)
        return [SPEED]

    monkeypatch.setattr(bench, "_measure", measure)
    resources = ResourcesConfig(workers=2, max_groups=max_groups)
    job = BenchJob((SPACE.experiment,), None, resources)  # type: ignore[arg-type]
    found = measure_machine(job, 8, 0)
    assert measured == [found.n_groups] == [n_groups]


def test_opening_of_rows_and_packs_is_part_of_the_preparation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = [100.0]

    def open_rows(*_: object) -> None:
        seconds[0] += 5

    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: seconds[0]))
    monkeypatch.setattr(bench, "fold_data", open_rows)
    monkeypatch.setattr(bench, "_take_priority_of_workers", lambda: None)
    monkeypatch.setattr("hms_ray.train.speed.measure_fold", lambda *_, **__: SPEED)
    prepared: Any = SimpleNamespace(rows=lambda: None)
    job = BenchJob((SPACE.experiment,), prepared, ResourcesConfig())
    found = bench._measure_here(job, Process(), lambda name: None)
    assert found == [replace(SPEED, prepare_s=SPEED.prepare_s + 5)]
