"""Costs of a study's runs: counted from events and stored folds, kept, shown."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hms_ray.cli.main import main
from hms_ray.display.run_cost import Estimate, RunCost, Work, cost_text
from hms_ray.errors import StudyError
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.bench_estimate import START_UP_S, BenchEstimate, read_bench, write_bench
from hms_ray.study.cost import COSTS_FILE, RunCounter, read_costs
from hms_ray.study.new import create_study
from tests.refused import refusal
from tests.study_data import make_space, prepared_rows


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def store_fold(results: Path, key: str, seconds: float, saved: float = 0.0, **timing: float) -> str:
    record: dict[str, Any] = {"seconds": seconds, "saved_s": saved, "timing": timing}
    FoldStore(results).write(key * 64, pd.DataFrame(), record, lambda path: path.write_bytes(b""))
    return key * 64


def fold(event: str, key: str) -> dict[str, Any]:
    return {"event": event, "fold": 0, "key": key}


def counted_run(
    folder: Path,
    clock: Clock,
    key: str = "a",
    bench: BenchEstimate | None = None,
    work: Work = "search",
) -> RunCounter:
    """40 s of training in 2 slots x 50 s since the first job, 20 s after the start."""
    counter = RunCounter(folder / "study", folder, work, clock)
    counter.start(4, 2, bench)
    clock.now += 20
    counter.handle(fold("fold_started", key))
    rest = {"train_s": 10.0, "evaluate_s": 5.0, "images_per_s": 8.0}
    counter.handle(fold("fold_ended", store_fold(folder, key, 25.0, 7.0, **rest)))
    clock.now += 30
    counter.handle(fold("fold_started", "x"))
    counter.handle(fold("fold_ended", store_fold(folder, chr(ord(key) + 1), 15.0)))
    counter.handle({"event": "folds_reused", "keys": {1: store_fold(folder, "e", 3.0, 1.0)}})
    counter.handle({"event": "trial_ended", "trial": 0})
    clock.now += 20
    return counter


def test_cost_is_summed_over_the_folds_of_a_run(tmp_path: Path) -> None:
    counter = counted_run(tmp_path, Clock())
    counter.add_pruned(11.0)
    assert counter.cost() == RunCost(
        started="1970-01-12T13:46:40+00:00",
        seconds=70.0,
        start_up_s=20.0,
        slots=2,
        n_folds=2,
        images=80,
        training_s=40.0,
        evaluated_s=5.0,
        saved_by_store_s=4.0,
        saved_by_stages_s=7.0,
        saved_by_pruning_s=11.0,
        devices=1.0,
    )
    assert counter.cost().useful_share == 40 / (2 * 50)
    assert counter.cost().saved_s == 22


def test_pruning_saves_device_hours_of_a_group(tmp_path: Path) -> None:
    resources = make_space(resources={"workers": 3, "gpus_per_worker": 2}).resources
    counter = RunCounter(tmp_path, tmp_path, devices=resources.devices)
    counter.add_pruned(600.0)
    assert counter.cost().saved_by_pruning_device_hours == pytest.approx(1.0)
    assert "Pruning saved about 1 device hours, 10:00 of training." in cost_text(counter.cost())


def test_fold_that_becomes_visible_later_counts_then(tmp_path: Path) -> None:
    counter = RunCounter(tmp_path, tmp_path)
    counter.handle(fold("fold_ended", "a" * 64))
    assert counter.cost().n_folds == 0
    store_fold(tmp_path, "a", 25.0)
    assert counter.cost().training_s == 25
    assert counter.cost().training_s == 25, "it counts once"


def test_run_without_a_job_has_no_useful_share(tmp_path: Path) -> None:
    cost = RunCounter(tmp_path, tmp_path).cost()
    assert cost.useful_share is None
    assert "Useful" not in cost_text(cost)


def test_resumed_study_shows_the_cost_of_all_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    create_study(tmp_path, "study", make_space(), prepared_rows(tmp_path))
    for key, work in (("a", "search"), ("c", "confirm")):
        counter = counted_run(tmp_path, clock, key, work=work)  # type: ignore[arg-type]
        counter.write()
        clock.now += 10
        counter.write()  # Replaces the run's earlier record.
        clock.now += 90
    first, second = read_costs(tmp_path / "study")
    assert (first.seconds, second.seconds) == (80, 80)
    assert (first.work, second.work) == ("search", "confirm")
    assert main(["show", "study", "--results", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "Cost of the runs" in shown
    rows = [line.split() for line in shown.splitlines() if "33%" in line]
    assert [row[2] for row in rows] == ["search", "confirm"]
    assert shown.count("1:20") == 2
    assert shown.count("33%") == 2
    assert main(["show", "study", "--results", str(tmp_path), "--json"]) == 0
    assert '"training_s": 40.0' in capsys.readouterr().out


def test_bench_is_the_estimate_of_a_run(tmp_path: Path) -> None:
    bench = BenchEstimate(trial_s=60.0, kept_share=0.5, made="now", n_folds=3)
    counter = counted_run(tmp_path, Clock(), bench=bench)
    # Four trials of 60 s, half of which is trained, in two slots: three rounds of folds.
    assert counter.estimate == Estimate(START_UP_S + 4 * 60 * 0.5 / 2, "bench")
    # Three folds of 20 s take two rounds in two slots, not one and a half.
    assert bench.run(1, 2, pruned=False) == Estimate(START_UP_S + 2 * 20, "bench")
    counter.estimate_once(1.0)
    text = cost_text(counter.cost())
    assert "1:10 (estimated by bench: 1:25, ratio 0.82)" in text
    assert "Useful share 40%: 0:40 of training (2 folds, 80 images) in 2 slots x 0:50" in text
    assert "Start-up before it: 0:20." in text
    assert "Training saved: 0:04 by the fold store, 0:07 by shared stages." in text


def test_confirming_runs_are_not_pruned_and_have_their_own_record(tmp_path: Path) -> None:
    bench, clock = BenchEstimate(trial_s=60.0, kept_share=0.5, made="now", n_folds=3), Clock()
    (tmp_path / "study").mkdir()
    confirming = counted_run(tmp_path, clock, "c", bench, "confirm")
    clock.now -= 70
    # Two records with the same start.
    counted_run(tmp_path, clock, "a").write()
    confirming.write()
    assert confirming.estimate == Estimate(START_UP_S + 4 * 60 / 2, "bench")
    assert [cost.work for cost in read_costs(tmp_path / "study")] == ["search", "confirm"]
    assert confirming.last is not None
    assert cost_text(confirming.last).startswith("Confirmation with new seeds took 1:10 (esti")


def test_without_a_bench_the_first_folds_give_the_estimate(tmp_path: Path) -> None:
    counter = counted_run(tmp_path, Clock())
    counter.estimate_once(None)
    assert counter.estimate is None
    assert cost_text(counter.cost()).startswith("This run took 1:10 (no estimate).")
    counter.estimate_once(100.0)
    assert counter.estimate == Estimate(120.0, "first folds")
    assert "estimated from its first folds: 2:00" in cost_text(counter.cost())


def test_bench_belongs_to_what_is_trained_its_group_data_and_machines(tmp_path: Path) -> None:
    space, data, machines = make_space(), {"rows": "a", "folds": "b"}, {"2 CPUs": 3}
    estimate = BenchEstimate(60.0, 1.0, "now", 3)
    write_bench(tmp_path, space, data, machines, estimate)
    budget = space.model_copy(update={"seed": 7, "metric": "kl_all"})
    assert read_bench(tmp_path, budget, data, machines) == estimate
    two = make_space(resources={"workers": 2})
    epochs = make_space(experiment={"training": {"stages": [{"epochs": 1}]}})
    for other in (
        (two, data, machines),
        (epochs, data, machines),
        (space, {**data, "folds": "c"}, machines),
        (space, data, {"2 CPUs": 2}),
        (space, data, {"4 CPUs": 3}),
    ):
        assert read_bench(tmp_path, *other) is None


@dataclass(frozen=True)
class Group:
    """Times of a worker group, in seconds after the start of the run."""

    requested: float
    first_job: float | None
    ended: float | None


def test_slots_are_the_groups_that_were_there_at_the_same_time(tmp_path: Path) -> None:
    counter = counted_run(tmp_path, Clock())
    spans = [(0, 15, 30), (1, 16, None), (31, 40, None), (2, None, 60), (32, 45, 46)]
    counter.set_groups(
        [Group(*(None if at is None else Clock.now + at for at in span)) for span in spans]  # type: ignore[arg-type]
    )
    # The fourth group took no fold; the second, third and fifth were there together.
    assert (counter.cost().slots, counter.cost().start_up_s) == (3, 15)
    counter.set_groups([])
    assert counter.cost().slots == 3


@pytest.mark.parametrize("content", ["[{}]", '[{"estimate": {"hours": 1}}]', "[{"])
def test_damaged_costs_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / COSTS_FILE).write_text(content)
    with refusal(StudyError, COSTS_FILE, where=COSTS_FILE, fix="Move that file away"):
        read_costs(tmp_path)
