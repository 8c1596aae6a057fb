import io
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState

from hms_ray.config.loading import validate_space
from hms_ray.config.pruning import PruneConfig
from hms_ray.config.space import Space
from hms_ray.dataset.prepare import Prepared, prepare
from hms_ray.distributed.job import Train
from hms_ray.errors import ResourceError, StorageError, StudyError
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.locks import running_since
from hms_ray.study.confirmation import confirmed_trials
from hms_ray.study.cost import read_costs
from hms_ray.study.folder import StudyFolder
from hms_ray.sweep import study as study_module
from hms_ray.sweep.study import run_study
from hms_ray.sweep.study_result import StudyResult
from tests.competition_folder import write_competition_folder
from tests.ray.stub_training import (
    train_by_rate,
    train_on_a_full_disk,
    train_while_results_are_moved,
)
from tests.refused import refusal
from tests.tensorboard_reading import curve, hparams_view
from tests.unit.test_proposals import optuna_study, recorded_trials

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("connected")]


ONE_STAGE = ({"rows": "all", "epochs": 1},)


def make_space(
    search: dict, *, n_trials: int, stages: Sequence[dict] = ONE_STAGE, **resources: object
) -> Space:
    return validate_space(
        {
            "experiment": {
                "data": {"n_folds": 2},
                "input": {"downsample": [10, 10]},
                "model": {"name": "test_efficientnet", "pretrained": False},
                "training": {"batch_size": 16, "stages": list(stages)},
            },
            "parameters": search,
            "budget": {"trials": n_trials},
            "startup_trials": 2,
            # A second group costs more than it saves here.
            "resources": {"max_groups": 1, "health_check_interval_s": 0.2, **resources},
        },
        "test",
        # As a study stored it: a parameter may be without effect, and repeat trials.
        stored=True,
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_competition_folder(folder / "data", 12)
    return folder


@pytest.fixture(scope="module")
def prepared(base: Path) -> Prepared:
    space = make_space({}, n_trials=1)
    return prepare(base / "data", space.experiment, base / "results")


RATES = {"training.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}}


@pytest.fixture(scope="module")
def first(base: Path, prepared: Prepared) -> tuple[StudyResult, str]:
    """Two trials at once, each with a worker of its own on two CPUs."""
    printed = io.StringIO()
    space = make_space(RATES, n_trials=2, max_groups=2, local_cache=str(base / "disk"))
    return run_study(space, prepared, base / "results", "first", stream=printed), printed.getvalue()


def test_study_writes_all_results(first: tuple[StudyResult, str], prepared: Prepared) -> None:
    result, _ = first
    folder = result.folder
    assert (result.n_finished, result.n_failed, result.n_trained, result.n_reused) == (2, 0, 4, 0)
    rows = folder.rows()
    pd.testing.assert_frame_equal(rows, prepared.rows())
    for trial in folder.trials():
        assert trial.oof(rows)["row_id"].tolist() == rows["row_id"].tolist()
        assert trial.experiment.training.learning_rate == trial.point["training.learning_rate"]
        assert list(trial.keys) == [0, 1]
        run = folder.path / "board" / f"{trial.number:04d}"
        for fold, key in trial.keys.items():
            history = FoldStore(folder.path.parent).record(key)["history"]
            found = [value for _, value in curve(run, f"folds/{fold}/KL all")]
            assert found == pytest.approx([line["kl_all"] for line in history])
            assert curve(run, f"folds/{fold}/gradient norm")[-1][1] > 0
        assert len(curve(run, "1 objective, mean over folds/KL >=10")) == len(history)
        (last,) = curve(run, "result/KL >=10")
        assert last[1] == pytest.approx(trial.scores["kl_10"])
    assert len(hparams_view(folder.path / "board").groups) == 2
    assert "TensorBoard" not in (folder.path / "log.txt").read_text()
    recorded = recorded_trials(folder.journal)
    assert [trial.state for trial in recorded] == [TrialState.COMPLETE] * 2
    values = [trial.scores["kl_10"] for trial in folder.trials()]
    assert [trial.value for trial in recorded] == values
    searched = optuna_study(folder.journal)
    assert (searched.study_name, searched.metric_names) == ("first", ["KL >=10"])
    assert searched.user_attrs["command"].startswith("hms-ray ")
    board = pd.read_csv(folder.path / "leaderboard.csv", dtype={"trial": str})
    assert board["trial"].tolist()[0] == f"{result.best.number:04d}"
    assert board["kl_10"].is_monotonic_increasing
    assert yaml.safe_load((folder.path / "space.yaml").read_text())["budget"]["trials"] == 2
    (run,) = json.loads((folder.path / "environment.json").read_text())
    assert run["packages"]["ray"]
    assert run["cluster"]["embedded"] is True
    (cost,) = read_costs(folder.path)
    records = [FoldStore(folder.path.parent).record(key) for key in keys_of(folder)]
    assert (cost.n_folds, cost.slots) == (4, 2)
    assert cost.training_s == pytest.approx(sum(record["seconds"] for record in records))
    assert 0 < cost.start_up_s < cost.seconds
    assert 0 < cost.useful_share < 1
    assert result.costs == (cost,)


def test_workers_of_a_machine_copy_a_pack_once(
    first: tuple[StudyResult, str], base: Path, prepared: Prepared
) -> None:
    """Two workers start at the same time, each with a group of its own."""
    (pack,) = prepared.packs.values()
    copies = [path.name for path in (base / "disk").iterdir() if path.is_dir()]
    assert copies == [f"{pack.path.name}-{pack.fingerprint[:16]}"]
    logs = [file.read_text() for file in (first[0].folder.path / "logs").iterdir()]
    assert sum("fold started" in log for log in logs) == 2
    assert sum(log.count(f"pack copied to {base / 'disk'}") for log in logs) == 1


def keys_of(folder: StudyFolder) -> list[str]:
    return [key for trial in folder.trials() for key in trial.keys.values()]


def test_scores_of_rows_are_kept_with_each_trial_and_the_choice_is_scored(
    first: tuple[StudyResult, str],
) -> None:
    board = first[0].leaderboard
    for trial in board.trials:
        assert (trial.path / "row_scores.npz").is_file()
        scores = board.add(trial.number)
        assert scores is not None
        assert scores.mean() == pytest.approx(trial.scores["kl_all"], rel=1e-9)
    choice = board.choice()
    assert (choice.n_trials, choice.best_trial) == (2, first[0].best.number)
    assert "Nested KL >=10 of the final choice" in board.text()


def test_logs_of_study_and_workers_name_trials_folds_and_ranks(
    first: tuple[StudyResult, str],
) -> None:
    folder = first[0].folder
    log = (folder.path / "log.txt").read_text()
    for text in (
        "start: ",
        "cluster: ",
        "trial 0001 fold 1 started",
        "2 trials finished, 0",
    ):
        assert text in log
    assert log.endswith("hms_ray: end\n")
    logs = [file.read_text() for file in (folder.path / "logs").iterdir()]
    texts = [f"[trial 0001 fold {fold} rank 0] stage train epoch 1: KL all" for fold in (0, 1)]
    for text in (*texts, "[trial 0001] trial started: learning_rate=", "[trial 0001] trial ended"):
        assert any(text in log for log in logs)


def test_progress_names_trials_folds_and_the_best(first: tuple[StudyResult, str]) -> None:
    result, printed = first
    lines = printed.splitlines()
    assert any("first: 2 trials x 2 folds, 3 at once, objective KL >=10" in line for line in lines)
    for number in (0, 1):
        for fold in (0, 1):
            assert any(f"trial {number:04d} fold {fold} done" in line for line in lines)
    last = [line for line in lines if f"trial {result.best.number:04d}: KL all" in line][-1]
    assert last.endswith("best so far")
    assert f"KL >=10 {result.best.scores['kl_10']:.4f}" in last


def test_finished_study_is_not_run_again(
    first: tuple[StudyResult, str], prepared: Prepared, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "session", None)
    again = run_study(make_space(RATES, n_trials=2), prepared, base / "results", "first")
    assert (again.n_finished, again.n_trained) == (2, 0)
    assert again.best == first[0].best
    assert again.costs == ()


def test_group_that_does_not_fit_is_refused(prepared: Prepared, base: Path) -> None:
    space = make_space(RATES, n_trials=1, workers=1000)
    with pytest.raises(ResourceError, match="a worker group must fit on the cluster") as caught:
        run_study(space, prepared, base / "results", "too-large")
    assert "got 1,000 workers with 1 CPU and 0 GPUs each on this machine: " in str(caught.value)


def test_objective_without_rows_is_refused(prepared: Prepared, base: Path) -> None:
    rows = prepared.rows()
    rows[rows["total_votes"] < 10].to_parquet(base / "few.parquet")
    few = replace(prepared, rows_file=base / "few.parquet")
    with pytest.raises(StudyError, match="the metric kl_10 needs rows"):
        run_study(make_space(RATES, n_trials=1), few, base / "results", "few")
    assert not (base / "results" / "few").exists()


def test_study_with_failures_and_duplicates_is_extended(prepared: Prepared, base: Path) -> None:
    search = {
        "model.name": {"values": ["test_efficientnet", "no_such_model"]},
        # No stage uses it, so its two values train the same.
        "training.stage_threshold": {"values": [4, 10]},
        "training.seed": {"values": [0, 1]},
    }
    points = [
        ("no_such_model", 4, 0),
        ("test_efficientnet", 4, 0),
        ("test_efficientnet", 10, 0),
        ("test_efficientnet", 4, 1),
    ]
    start = [dict(zip(search, point, strict=True)) for point in points]
    space = make_space(search, n_trials=1, max_concurrent_trials=1)
    printed = io.StringIO()

    def run(n_trials: int) -> StudyResult:
        budget = space.budget.model_copy(update={"trials": n_trials})
        extended = space.model_copy(update={"budget": budget, "start": start})
        return run_study(extended, prepared, base / "results", "mixed", stream=printed)

    result = run(1)
    assert (result.n_finished, result.n_failed, result.best.number) == (1, 1, 1)
    result = run(2)
    assert (result.n_finished, result.n_trained) == (2, 2)
    assert [cost.n_folds for cost in read_costs(result.folder.path)] == [2, 2]
    trials = recorded_trials(result.folder.journal)
    assert [trial.state for trial in trials] == [TrialState.FAIL] + 3 * [TrialState.COMPLETE]
    assert "no_such_model" in trials[0].user_attrs["reason"]
    assert trials[2].user_attrs["duplicate_of"] == 1
    assert trials[2].value == trials[1].value
    assert not result.folder.trial_path(2).exists()
    text = printed.getvalue()
    assert "trial 0000 failed: " in text
    assert "trial 0002 repeats trial 0001: not trained again" in text
    assert "finished in earlier runs: 1" in text
    board = pd.read_csv(result.folder.path / "leaderboard.csv", dtype={"trial": str})
    assert sorted(board["trial"]) == ["0000", "0001", "0003"]
    assert board["state"].tolist() == ["complete", "complete", "failed"]
    failure = result.folder.trial_path(0) / "error.txt"
    assert "Traceback" in failure.read_text()


def test_hopeless_and_diverged_trials_are_pruned_and_optuna_is_told(
    prepared: Prepared, base: Path
) -> None:
    rates = [1e-4, 2e-4, 8e-3, 9.5e-3, 9.6e-3, 9.7e-3]
    space = make_space(RATES, n_trials=len(rates), max_concurrent_trials=1)
    start = [{"training.learning_rate": rate} for rate in rates]
    prune = PruneConfig(min_trials=2, tau=0.001)
    space = space.model_copy(update={"start": start, "metric": "kl_all", "prune": prune})
    printed = io.StringIO()
    results = base / "results"
    run = run_study(space, prepared, results, "pruned", train=train_by_rate, stream=printed)
    states = [trial.state for trial in run.folder.trials()]
    assert states == ["complete", "complete", "pruned", *["diverged"] * 3]
    assert (run.n_finished, run.n_failed, run.best.number) == (6, 0, 0)
    found = recorded_trials(run.folder.journal)
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * 2 + [TrialState.PRUNED] * 4
    best = run.best.scores["kl_all"]
    # After both folds, the comparable estimate of a finished trial is its score.
    assert found[1].intermediate_values[2] == pytest.approx(found[1].value)
    assert list(found[2].intermediate_values) == [1]
    assert found[2].intermediate_values[1] > best
    assert found[2].user_attrs["reason"].startswith("after 1 of 2 folds: ")
    assert [trial.intermediate_values for trial in found[3:]] == [{}] * 3
    pruned = run.folder.trial(2)
    assert pruned is not None
    assert (list(pruned.keys), pruned.n_folds, pruned.fold_minutes) == ([0], 2, 1.0)
    assert pruned.estimate == found[2].intermediate_values[1]
    text = run.leaderboard.text()
    assert f"pruned, estimate {pruned.estimate:.4f}" in text
    assert "1 trial pruned: 1 fold not trained, about 0.017 hours saved" in text
    assert "trial 0002 pruned after 1 of 2 folds" in printed.getvalue()
    # With another rule it is the same study, and nothing is trained again.
    other = space.model_copy(update={"prune": PruneConfig(rule="none")})
    assert [cost.saved_by_pruning_s for cost in run.costs] == [60.0]
    again = run_study(
        other, prepared, results, "pruned", train=train_by_rate, stream=printed, confirm=(2, 1)
    )
    assert again.n_finished == 6
    assert len(again.folder.trials()) == 6
    # The two best ones have run once more with a new seed, which has a cost of its own.
    confirmed = confirmed_trials(again.folder)
    assert [(trial.number, list(trial.scores)) for trial in confirmed] == [(0, [1001]), (1, [1001])]
    assert "2 trials confirmed with new seeds, 2 runs x 2 folds" in printed.getvalue()
    assert read_costs(again.folder.path) == [*run.costs, *again.costs]
    (cost,) = again.costs
    assert (cost.work, cost.n_folds, cost.training_s) == ("confirm", 4, 240.0)
    assert 0 < cost.start_up_s < cost.seconds


def test_faults_of_storage_end_a_study_at_once_and_fail_no_trial(
    prepared: Prepared, base: Path
) -> None:
    results = base / "faulty"
    results.mkdir()
    space = make_space(RATES, n_trials=1, max_groups=1, max_concurrent_trials=1)
    space = space.model_copy(update={"start": [{"training.learning_rate": 1e-3}]})
    printed = io.StringIO()

    def run(train: Train) -> StudyResult:
        return run_study(space, prepared, results, "one", train=train, stream=printed)

    with refusal(StorageError, "free space", where=str(results), fix="same command"):
        run(train_on_a_full_disk)
    folder = StudyFolder.open("one", results)
    assert folder.trials() == []
    assert len(FoldStore(results).folders()) == 1
    assert not list(results.rglob(".draft-*"))
    n_tries = sum(
        file.read_text().count("fold failed") for file in (folder.path / "logs").iterdir()
    )
    assert n_tries == 1, "it is not tried again"

    moved = results.with_name("moved")
    began = time.monotonic()
    try:
        with refusal(StorageError, "must stay", got="removed", where=str(folder.path)):
            run(train_while_results_are_moved)
        assert not results.exists(), "nothing is made again"
        assert time.monotonic() - began < 60
    finally:
        moved.rename(results)
    assert folder.trials() == []
    states = [trial.state for trial in recorded_trials(folder.journal)]
    assert states == [TrialState.FAIL, TrialState.RUNNING], "repeated, and open"
    result = run(train_by_rate)
    assert (result.n_finished, result.n_failed, result.n_reused) == (1, 0, 1)
    assert "lost" not in printed.getvalue()
    assert running_since(folder.path) is None


def test_study_without_a_finished_trial_is_an_error(prepared: Prepared, base: Path) -> None:
    space = make_space({"model.name": {"values": ["no_such_model"]}}, n_trials=1)
    printed = io.StringIO()
    with pytest.raises(StudyError, match="a study must have a finished trial") as caught:
        run_study(space, prepared, base / "results", "broken", stream=printed)
    assert "no_such_model" in str(caught.value)
    assert "the search ended after 0 of 1 trials: every experiment" in printed.getvalue()


def test_trial_reuses_the_first_stage_of_the_previous_one(prepared: Prepared, base: Path) -> None:
    path = "training.stages.1.learning_rate"
    space = make_space(
        {path: {"values": [1e-3, 1e-2]}},
        n_trials=2,
        stages=[
            {"name": "noisy", "rows": "below_threshold", "epochs": 1},
            {"name": "good", "rows": "at_least_threshold", "epochs": 1},
        ],
        max_concurrent_trials=1,
    ).model_copy(update={"start": [{path: 1e-3}, {path: 1e-2}]})
    printed = io.StringIO()
    result = run_study(space, prepared, base / "results", "shared", stream=printed)
    assert (result.n_trained, result.n_reused) == (4, 0)
    reused = [line for line in printed.getvalue().splitlines() if "saved" in line]
    assert sorted(line[8:65] for line in reused) == [
        f"trial 0001 fold {fold}: stage noisy reused from the fold store" for fold in (0, 1)
    ]
    first, second = result.folder.trials()
    assert first.saved_minutes == 0 < second.saved_minutes < second.fold_minutes
    board = result.leaderboard.frame().set_index("trial")["saved_minutes"]
    assert board["0001"] == second.saved_minutes


def test_study_reuses_folds_of_another_study(
    first: tuple[StudyResult, str], prepared: Prepared, base: Path
) -> None:
    start = [first[0].best.point]
    space = make_space(RATES, n_trials=1).model_copy(update={"start": start})
    printed = io.StringIO()
    result = run_study(space, prepared, base / "results", "second", stream=printed)
    assert (result.n_trained, result.n_reused) == (0, 2)
    assert result.best.scores == first[0].best.scores
    assert "reused from the fold store: fold 0, 1" in printed.getvalue()
