"""Speeds that a bench measures, with work whose time is known."""

from types import SimpleNamespace
from typing import Any

import pytest

from hms_ray.config.augmentation import AugmentConfig, MosaicConfig
from hms_ray.config.training import StageConfig
from hms_ray.train import device_meters
from hms_ray.train import speed as module
from hms_ray.train.fold_speed import FoldSpeed, pooled
from hms_ray.train.images import Images
from hms_ray.train.process import Process
from hms_ray.train.speed import WARM_UP_STEPS, measure_fold
from hms_ray.train.step import Step
from hms_ray.train.windows import Resident
from tests.fold_data import example_experiment, example_fold

STAGES = (
    StageConfig(epochs=3, augment=AugmentConfig(mosaic=MosaicConfig(epochs=1))),
    StageConfig(epochs=2, augment=AugmentConfig()),
    StageConfig(epochs=2, augment=AugmentConfig()),
)
DATA = example_fold(n_train=40, n_valid=12)
STEP_S, INPUT_S, READ_S, SLOW_S = 0.004, 0.008, 0.05, 0.3


def measure(**inputs: Any) -> FoldSpeed:
    inputs = {"downsample": (2, 2), "size": (32, 32), **inputs}
    experiment = example_experiment("test_vit", inputs, stages=STAGES, batch_size=10)
    return measure_fold(experiment, DATA, 0, Process(), pass_s=0.01)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps, images and windows take a known time, and nothing else does; counts the steps."""
    steps: list[int] = []
    clock = SimpleNamespace(now=0.0)
    frozen = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr(module, "time", frozen)
    monkeypatch.setattr(device_meters, "time", frozen)

    def take(seconds: float) -> None:
        clock.now += seconds

    train, make, read = Step.__call__, Images._make, Resident.windows

    def slow_step(self: Step, batch: Any, image: Any) -> Any:
        if len(steps) < WARM_UP_STEPS:
            take(SLOW_S)
        steps.append(len(steps))
        take(STEP_S)
        return train(self, batch, image)

    def slow_images(self: Images, *arguments: Any) -> Any:
        for image in make(self, *arguments):
            take(INPUT_S)
            yield image

    def slow_windows(self: Resident, starts: Any) -> Any:
        if len(starts):
            take(READ_S)
        return read(self, starts)

    monkeypatch.setattr(Step, "__call__", slow_step)
    monkeypatch.setattr(Images, "_make", slow_images)
    monkeypatch.setattr(Resident, "windows", slow_windows)
    return steps


def test_warm_up_first_and_later_passes_are_told_apart(known: list[int]) -> None:
    speed = measure()
    assert set(speed.epochs) == {(0, True), (0, False), (1, False), (2, False)}
    # Equal augmentation is measured once.
    assert speed.epochs[0, False] is speed.epochs[1, False] is speed.epochs[2, False]
    for kind in speed.epochs.values():
        assert len(kind.later_s) == module.REPETITIONS
        for first, later in zip(kind.first_s, kind.later_s, strict=True):
            # Batches of ten rows; an image of a mosaic needs more windows than one.
            assert 10 * later == pytest.approx(STEP_S + INPUT_S)
            assert 10 * first >= STEP_S + INPUT_S + READ_S - 1e-9
    # All 12 rows in one batch.
    assert speed.scoring_later_s == pytest.approx([INPUT_S / 12] * module.REPETITIONS)
    assert speed.scoring_first_s == pytest.approx([(INPUT_S + READ_S) / 12] * module.REPETITIONS)
    assert speed.restart_s == (0.0,) * len(speed.restart_s)
    assert speed.n_cached == 52
    assert speed.image_sizes == ((32, 32),)


def test_share_of_input_work_is_the_time_to_make_images(
    known: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.unit.test_speed.READ_S", 0.0)
    monkeypatch.setattr("tests.unit.test_speed.SLOW_S", 0.0)
    shares = measure().epochs[1, False].input_share
    assert shares == pytest.approx([INPUT_S / (INPUT_S + STEP_S)] * module.REPETITIONS)


def test_fit_is_part_of_each_repetition() -> None:
    speed = measure(normalisation="global")
    assert len(speed.fit_s) == 2 * module.REPETITIONS
    assert min(speed.fit_s) > 0
    assert speed.memory_bytes > speed.pack_bytes > 0


def test_windows_that_are_not_cached_are_counted_as_such() -> None:
    assert measure(downsample=(1, 1)).n_cached == 0


def test_pooled_speed_has_the_repetitions_of_all_groups() -> None:
    one = measure()
    both = pooled([one, one])
    assert both.epochs[0, True].later_s == 2 * one.epochs[0, True].later_s
    assert both.scoring_first_s == 2 * one.scoring_first_s
    assert both.images_per_s() == one.images_per_s()
