"""A bench in this process: what it prints, keeps and leaves alone."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from hms_ray.cli.main import main
from hms_ray.config.loading import load_space
from hms_ray.dataset.prepare import prepare
from hms_ray.dataset.sources import sources_for
from hms_ray.display.bench_table import BenchReport, bench_text, best_at_once, duration_text
from hms_ray.errors import ResourceError, StudyError
from hms_ray.experiment.bench import MachineSpeed, local_machine
from hms_ray.experiment.bench_command import _over_machines
from hms_ray.storage.folder_names import STORE_NAME
from hms_ray.study.bench_estimate import ASSUMED_KEPT_SHARE, kept_share, read_bench
from hms_ray.study.folder import StudyFolder
from hms_ray.study.identity import data_identity
from hms_ray.study.new import create_study
from tests.competition_folder import write_competition_folder
from tests.refused import refusal
from tests.study_data import make_result, make_space, prepared_rows

SPACE = {
    "experiment": {
        "data": {"n_folds": 2},
        "input": {"downsample": [10, 10], "normalisation": "per_image"},
        "model": {"name": "test_resnet", "pretrained": False, "drop_path": 0},
        "training": {"batch_size": 8, "stages": [{"epochs": 2}]},
    },
    "parameters": {
        "training.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True},
        "input.normalisation": {"values": ["per_image", "global"]},
    },
    "budget": {"trials": 7},
}


@pytest.fixture
def increments() -> list[int]:
    """By how much the process lowers its priority, which is 5."""
    return []


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, increments: list[int]
) -> Iterator[Path]:
    monkeypatch.setattr("hms_ray.pack.build.default_workers", lambda: 1)
    # Two cores may be all that there are: one worker in this process.
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr("hms_ray.train.speed.PASS_S", 0.01)
    # The tests that follow in this process keep their priority.
    monkeypatch.setattr(os, "nice", lambda more: increments.append(more) or 5)
    write_competition_folder(tmp_path / "data", 6)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(SPACE))
    return tmp_path


def test_bench_prints_the_cost_and_writes_no_folds(
    folder: Path, increments: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    file, results = folder / "mine.yaml", folder / "results"
    words = [str(file), "--data", str(folder / "data"), "--results", str(results)]
    assert main(["bench", *words]) == 0
    shown = capsys.readouterr().out
    table = [line for line in shown.splitlines() if line.startswith("1 CPU ")]
    assert len(table) == 2, "the learning rate changes no speed"
    assert "input.normalisation=global" in table[1]
    assert "7 trials x 2 folds" in shown
    assert "1 slot." in shown
    share = f"if {ASSUMED_KEPT_SHARE:.0%} of the folds are trained (an assumption"
    assert share in " ".join(shown.split())
    assert shown.splitlines()[-1].startswith(f"next: hms-ray sweep {file} --data")
    assert [path.name for path in (results / STORE_NAME).iterdir()] == ["rows"]
    space = load_space(file)
    prepared = prepare(folder / "data", space.experiment, results, sources=sources_for(space))
    identity = data_identity(prepared)
    estimate = read_bench(results, space, identity, {local_machine(1, 0): 1})
    assert estimate is not None, "a sweep of this data on this machine finds it"
    assert read_bench(results, space, identity, {local_machine(2, 0): 1}) is None
    assert increments == [0, 10], "as slow as Ray's workers beside other load"
    # Two folds of a tiny model.
    assert 0.01 < estimate.trial_s < 60
    assert estimate.kept_share == 1, "an assumption is no estimate"


def test_gpus_that_are_missing_are_refused(folder: Path) -> None:
    words = [str(folder / "mine.yaml"), "--data", str(folder / "data")]
    gpu = ["--set", "resources.gpus_per_worker=1", "--results", str(folder / "results")]
    with refusal(ResourceError, "must fit", got="1 CPU and 1 GPU on 1 CPU", fix="--address"):
        main(["--debug", "bench", *words, *gpu])
    assert not (folder / "data" / "packed").exists(), "refused before anything is packed"


@pytest.mark.parametrize("named", [True, False])
def test_share_of_folds_is_that_of_a_study_with_pruned_trials(tmp_path: Path, named: bool) -> None:
    create_study(tmp_path, "mine", make_space(), prepared_rows(tmp_path))
    study = StudyFolder.open("mine", tmp_path)
    experiment = make_space().experiment
    whole = make_result(0.5)
    study.write_trial(0, {}, experiment, whole)
    wanted = ("mine", "other") if named else (None, "mine")
    assert kept_share(*wanted, tmp_path) is None
    study.write_trial(1, {}, experiment, replace(whole, keys={0: "a" * 64}))
    assert kept_share(*wanted, tmp_path) == (3 / 4, "as in mine, 2 ended trials")
    assert kept_share(None, "other", tmp_path) is None
    with refusal(StudyError, "the study must exist", got="mime", where=str(tmp_path)):
        kept_share("mime", "mine", tmp_path)


class OneSpeed:
    """Stands in for the trials on machines of one kind."""

    def __init__(self, seconds: float, n_machines: int, n_groups: int) -> None:
        self.machine = MachineSpeed("", n_machines, n_groups, 1, (), {})
        self._seconds = seconds

    def mean(self, pick: object) -> float:
        return self._seconds


def test_rates_of_different_machines_are_added() -> None:
    # Four groups that take 100 s and two that take 25 s do 4 + 8 trials in 100 s.
    kinds = [OneSpeed(100.0, 2, 2), OneSpeed(25.0, 1, 2)]
    assert _over_machines(kinds, min) / 6 == pytest.approx(100 / 12)  # type: ignore[arg-type]


REPORT = BenchReport(
    space="mine",
    rows=(),
    pack_bytes=10**9,
    at_once={"16 CPUs, 1 GPU H200": {1: 100.0, 2: 180.0, 4: 170.0}},
    groups=("One group.",),
    n_trials=40,
    n_folds=5,
    visits=1000,
    trial_s=(900.0, 1800.0, 3600.0),
    slots=2,
    kept_share=0.5,
    kept_source="a test",
)


def test_hours_are_work_over_slots() -> None:
    shown = " ".join(bench_text(REPORT).split())
    assert "Without pruning 10.0 h (5.0 h to 20.0 h" in shown
    assert "with pruning 5.0 h if 50% of the folds are trained (a test)" in shown
    assert "Best: 2 folds at once, --set resources.gpus_per_worker=0.5." in shown
    assert re.search(r"4 +170 +1\.70", bench_text(REPORT))


def test_best_number_of_folds_at_once_is_the_smallest_of_equal_ones() -> None:
    assert best_at_once({4: 100.0, 1: 90.0, 2: 100.0}) == 2
    assert [duration_text(seconds) for seconds in (119, 7199, 7200)] == [
        "119 s",
        "120 min",
        "2.0 h",
    ]
