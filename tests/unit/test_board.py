"""A study in TensorBoard: one run per trial, and the leaderboard's numbers in HParams."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.plugins.hparams import api_pb2

from hms_ray.config.space import Parameter
from hms_ray.dataset.prepare import Prepared
from hms_ray.display import hparams
from hms_ray.display.event_file import EventFile
from hms_ray.display.hparams import declare, session, session_name, shown_value
from hms_ray.display.tensorboard import RunEnd, RunLog
from hms_ray.errors import ConfigError
from hms_ray.report.fold_runs import export_folds
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.board import StudyBoard
from hms_ray.study.folder import StudyFolder
from hms_ray.study.leaderboard import Leaderboard
from hms_ray.study.new import create_study
from tests.board_study import end_trials, store_fold
from tests.refused import refusal
from tests.study_data import RATE, make_result, make_space
from tests.tensorboard_reading import curve, hparams_view, metrics, scalars, texts

PARAMETERS = {
    "training.loss": Parameter(values=["kl", "kl_log_votes"]),
    "training.learning_rate": Parameter(min=1e-4, max=1e-2, log=True),
    "training.stage_threshold": Parameter(min=3, max=8),
    "training.normalise_weights": Parameter(values=[True, False]),
    "input.views": Parameter(values={"both": ["panels", "statistics"], "one": ["panels"]}),
}


METRICS = ["KL >=10", "recalibrated KL >=10", "KL all", "KL >=4", "minutes", "estimate"]


def values(loss: str, rate: float) -> dict[str, Any]:
    return {
        "training.loss": loss,
        "training.learning_rate": rate,
        "training.stage_threshold": 5,
        "training.normalise_weights": True,
        "input.views": "both",
    }


def write_study(results: Path, study: str, losses: list[str]) -> Path:
    board = results / study / "board"
    for trial, loss in enumerate(losses):
        (board / f"{trial:04d}").mkdir(parents=True)
        run = RunLog(board / f"{trial:04d}", results, "kl_10", 2, dict.__getitem__)  # type: ignore[arg-type]
        state = "complete" if trial != 1 else "failed"
        name = session_name(study, trial, state, None if trial == 1 else 0.5)
        shown = {**values(loss, 10.0 ** -(3 + trial)), "Model": "resnet", "Reason": None}
        summaries = session(name, shown, PARAMETERS, state, 1.0, 2.0)
        run.end(RunEnd(state=state, scores={"kl_all": 0.5 + trial}, summaries=summaries))
        run.file.flush()
    declare(board, PARAMETERS, "kl_10", ["resnet"])
    return board


def test_trial_is_one_session(tmp_path: Path) -> None:
    write_study(tmp_path, "first", ["kl", "kl_log_votes"])
    view = hparams_view(tmp_path)
    assert view.runs == ["first/board/0000", "first/board/0001"], "one run per trial alone"
    assert list(view.groups) == ["0.5000 0000 first", "failed 0001 first"]
    group = view.groups["failed 0001 first"]
    assert [(session.name, session.status) for session in group.sessions] == [
        ("first/board/0001", api_pb2.STATUS_FAILURE)
    ]
    assert group.hparams["training.loss"].string_value == "kl_log_votes"
    assert group.hparams["training.learning_rate"].number_value == 1e-4
    assert group.hparams["training.normalise_weights"].bool_value is True
    assert group.hparams["input.views"].string_value == "both"
    assert group.hparams["Model"].string_value == "resnet"
    assert group.hparams["State"].string_value == "failed"
    assert metrics(group) == {"result/KL all": 1.5}


@pytest.mark.parametrize("scores", [[0.61, 0.5932, 0.5931, 0.7]])
def test_best_trials_are_first_in_the_order_of_names(scores: list[float]) -> None:
    names = [session_name("a", n, "complete", score) for n, score in enumerate(scores)]
    names += [session_name("a", 4, "pruned", None), session_name("a", 5, "complete", 12.0)]
    assert [name.split()[1] for name in sorted(names)] == [
        "0002",
        "0001",
        "0000",
        "0003",
        "0005",
        "0004",
    ]


def test_declaration_has_domains_and_metrics(tmp_path: Path) -> None:
    write_study(tmp_path, "first", ["kl"])
    experiment = hparams_view(tmp_path).experiment
    infos = {info.name: info for info in experiment.hparam_infos}
    assert list(infos) == ["State", *sorted(PARAMETERS), "Model", "Reason"]
    assert [name for name, info in infos.items() if not info.differs] == ["Model", "Reason"]
    choices = [value.string_value for value in infos["training.loss"].domain_discrete.values]
    assert choices == ["kl", "kl_log_votes"]
    labels = [value.string_value for value in infos["input.views"].domain_discrete.values]
    assert labels == ["both", "one"]
    interval = infos["training.learning_rate"].domain_interval
    assert (interval.min_value, interval.max_value) == (1e-4, 1e-2)
    assert infos["training.normalise_weights"].type == api_pb2.DATA_TYPE_BOOL
    states = {value.string_value for value in infos["State"].domain_discrete.values}
    assert states == {"complete", "pruned", "diverged", "failed", "stopped"}
    # TensorBoard ticks the first five.
    assert [metric.display_name for metric in experiment.metric_infos] == METRICS


def test_studies_share_one_view_and_show_their_own_columns_first(tmp_path: Path) -> None:
    write_study(tmp_path, "first", ["kl"])
    second = tmp_path / "second" / "board"
    (second / "0000").mkdir(parents=True)
    other = {
        "model.name": Parameter(values=["a", "b"]),
        "training.loss": Parameter(values=["kl", "kl_capped_votes"]),
        "training.learning_rate": Parameter(min=1e-3, max=1e-1),
    }
    declare(second, other, "kl_all", [])
    everything = {"State", "Model", "Reason", *PARAMETERS, "model.name"}
    for logdir, own in ((tmp_path, PARAMETERS), (tmp_path / "first", PARAMETERS), (second, other)):
        infos = {info.name: info for info in hparams_view(logdir).experiment.hparam_infos}
        assert set(infos) == everything
        assert {name for name, info in infos.items() if info.differs} == {"State", "Model", *own}
        losses = {value.string_value for value in infos["training.loss"].domain_discrete.values}
        assert losses == {"kl", "kl_log_votes", "kl_capped_votes"}
        interval = infos["training.learning_rate"].domain_interval
        assert (interval.min_value, interval.max_value) == (1e-4, 1e-1)
        assert not infos["Model"].domain_discrete.values, "any model: it is searched"
    first = hparams_view(second).experiment.metric_infos[0]
    assert first.display_name == "KL all", "the objective of its study"


def test_declaring_again_changes_nothing(tmp_path: Path) -> None:
    board = write_study(tmp_path, "first", ["kl"])
    before = {path: path.stat().st_mtime_ns for path in board.rglob("*") if path.is_file()}
    declare(board, PARAMETERS, "kl_10", ["resnet"])
    assert {path: path.stat().st_mtime_ns for path in board.rglob("*") if path.is_file()} == before


def test_studies_declared_at_the_same_time_are_both_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, others = hparams._read, []
    boards = [tmp_path / name / "board" for name in ("a", "b")]
    for board in boards:
        (board / "0000").mkdir(parents=True)

    def overtaken(file: Path) -> Any:
        described = read(file)
        if not others:
            late = {"model.name": Parameter(values=["a", "b"])}
            others.append(threading.Thread(target=declare, args=(boards[1], late, "kl_10", [])))
            others[0].start()
            # Ends before this study has written, unless a lock makes it wait.
            others[0].join(timeout=0.3)
        return described

    monkeypatch.setattr(hparams, "_read", overtaken)
    declare(boards[0], PARAMETERS, "kl_10", [])
    others[0].join()
    for board in boards:
        names = {info.name for info in hparams_view(board).experiment.hparam_infos}
        assert names == {"State", "Model", "Reason", *PARAMETERS, "model.name"}


def test_path_searched_with_different_types_is_text(tmp_path: Path) -> None:
    path = "training.weight"
    rates = {path: Parameter(min=0.1, max=0.5)}
    words = {path: Parameter(values=["none", "low"])}
    for name, parameters in (("a", rates), ("b", words), ("c", rates)):
        (tmp_path / name / "board" / "0000").mkdir(parents=True)
        declare(tmp_path / name / "board", parameters, "kl_10", [])
    infos = {info.name: info for info in hparams_view(tmp_path).experiment.hparam_infos}
    assert infos[path].type == api_pb2.DATA_TYPE_STRING
    assert not infos[path].HasField("domain_discrete")
    assert not infos[path].HasField("domain_interval")


def test_damaged_declaration_is_skipped_and_written_again(tmp_path: Path) -> None:
    board = write_study(tmp_path, "first", ["kl"])
    (board / "hparams.json").write_text("{")
    other = tmp_path / "second" / "board"
    (other / "0000").mkdir(parents=True)
    declare(other, {}, "kl_10", [])
    declare(board, PARAMETERS, "kl_10", [])
    assert set(json.loads((board / "hparams.json").read_text())["columns"]) == {
        *PARAMETERS,
        "Model",
    }


@pytest.mark.parametrize(
    ("value", "parameter", "shown"),
    [
        (3, Parameter(min=1, max=5), 3),
        ("both", PARAMETERS["input.views"], "both"),
        (None, Parameter(values=[None, 0.5]), "None"),
        (0.5, Parameter(values=[None, 0.5]), "0.5"),
        (2, Parameter(values=[1, 2.5, 2]), 2.0),
        (False, Parameter(values=[True, False]), False),
        ({"a": 1}, None, '{"a": 1}'),
        (7, None, 7),
    ],
)
def test_values_are_shown_as_declared(
    value: object, parameter: Parameter | None, shown: object
) -> None:
    found = shown_value(value, parameter)
    assert found == shown
    assert type(found) is type(shown)


@pytest.fixture
def study(tmp_path: Path, prepared: Prepared) -> StudyFolder:
    return create_study(tmp_path / "results", "one", make_space(), prepared)


def test_hparams_view_is_the_leaderboard(study: StudyFolder) -> None:
    end_trials(study)
    results = study.path.parent
    with StudyBoard(study, results) as board:
        for trial in study.trials():
            board.trial_ended(trial)
    view = hparams_view(results)
    assert view.runs == [f"one/board/000{number}" for number in range(5)]
    table = Leaderboard(study).frame().set_index("trial")
    assert list(view.groups) == [
        *("0.4500 0004 one", "0.5000 0000 one"),
        *("diverged 0002 one", "pruned 0001 one", "stopped 0003 one"),
    ]
    for name, group in view.groups.items():
        row, found = table.loc[name.split()[1]], metrics(group)
        assert group.hparams["State"].string_value == row["state"]
        assert group.hparams[RATE].number_value == row[RATE]
        assert group.hparams["Model"].string_value == make_space().experiment.model.name
        for tag, column in (
            *(("result/KL all", "kl_all"), ("result/KL >=4", "kl_4"), ("result/KL >=10", "kl_10")),
            ("result/recalibrated KL >=10", "kl_10_recalibrated"),
            *(("result/estimate", "estimate"), ("result/minutes of training", "fold_minutes")),
        ):
            expected = row.get(column)
            if column == "estimate" and row["state"] == "complete":
                expected = row["kl_10"]
            if expected is None or np.isnan(expected):
                assert tag not in found
            else:
                assert found[tag] == pytest.approx(expected, rel=1e-6)
    statuses = {name.split()[1]: group.sessions[0].status for name, group in view.groups.items()}
    assert statuses == {
        **dict.fromkeys(("0000", "0001", "0003", "0004"), api_pb2.STATUS_SUCCESS),
        "0002": api_pb2.STATUS_FAILURE,
    }
    reasons = {name.split()[1]: g.hparams["Reason"].string_value for name, g in view.groups.items()}
    assert reasons["0001"] == "after 1 of 2 folds: worse"
    assert reasons["0002"] == "the loss must be finite"
    assert texts(study.path / "board" / "0003")["1 state"] == "stopped: stopped by hms\\-ray stop"


def test_texts_of_a_trial(study: StudyFolder) -> None:
    end_trials(study)
    for year in (2000, 3000):
        started = f"{year}-01-01T00:00:00+00:00"
        study.record_run({"started": started, "packages": {"optuna": str(year)}})
    with StudyBoard(study, study.path.parent) as board:
        for number in (4, 0):
            trial = study.trial(number)
            assert trial is not None
            board.trial_ended(trial)
    best, other = (texts(study.path / "board" / name) for name in ("0004", "0000"))
    assert best["2 difference to the best trial"].endswith("It has the same values.")
    text = other["2 difference to the best trial"]
    assert text.startswith("Best trial so far: 0004, KL &gt;=10 0\\.4500.")
    assert text.splitlines()[-1] == r"| training\.learning\_rate | 0\.002 | 0\.001 |"
    assert best["5 configuration"].startswith("    experiment:\n")
    assert "| torch | 2\\.15\\.0 |" in best["4 environment"]
    assert "| optuna |  | 2000 |" in best["4 environment"], "of the run that trained it"
    assert "0 to " in best["3 stages"]


def test_curves_equal_the_stored_histories(study: StudyFolder) -> None:
    end_trials(study)
    with StudyBoard(study, study.path.parent) as board:
        for trial in study.trials():
            board.trial_ended(trial)
    run, store = study.path / "board" / "0000", FoldStore(study.path.parent)
    for fold in (0, 1):
        stored = [line["kl_all"] for line in store.record(f"{fold}" * 64)["history"]]
        found = scalars(run)[f"folds/{fold}/KL all"]
        assert [value for _, _, value in found] == pytest.approx(stored)
        assert [(time_s, step) for time_s, step, _ in found] == [(17, 500), (27, 1000), (37, 1500)]
    assert curve(run, "1 objective, mean over folds/KL >=10") == [
        *((500, 1.0), (1000, 0.75), (1500, pytest.approx(0.5 / 3 + 0.5)))
    ]
    pruned = scalars(study.path / "board" / "0001")
    assert len(pruned["folds/1/KL all"]) == 3
    assert not [tag for tag in pruned if "mean over folds" in tag], "not of all folds"


def test_a_resumed_study_completes_the_runs_of_earlier_ones(study: StudyFolder) -> None:
    end_trials(study)
    results = study.path.parent
    former = study.path / "trials" / "0000" / "fold_0" / "events.out.tfevents.0000000000.hms_ray"
    former.parent.mkdir()
    formers = [former, results / former.name, results / "hparams.json"]
    for file in formers:
        file.write_bytes(b"")
    with StudyBoard(study, results) as board:
        board.catch_up(study.trials())
    runs = sorted((study.path / "board").glob("*/*hms_ray"))
    assert len(runs) == 5
    assert not any(file.exists() for file in formers)
    before = [run.read_bytes() for run in runs]
    # Killed before the end of trial 4 was written.
    runs[4].write_bytes(before[4][:-20])
    with StudyBoard(study, results) as board:
        board.catch_up(study.trials())
    assert [run.read_bytes() for run in runs[:4]] == before[:4]
    assert next(iter(hparams_view(results).groups)) == "0.4500 0004 one"
    assert len(curve(study.path / "board" / "0004", "folds/0/KL all")) == 3


def test_a_trial_that_is_retried_gets_a_new_end(study: StudyFolder) -> None:
    end_trials(study)
    results, rows = study.path.parent, study.rows()
    with StudyBoard(study, results) as board:
        board.catch_up(study.trials())
    keys = {fold: store_fold(results, rows, fold) for fold in (0, 1)}
    with StudyBoard(study, results) as board:
        board.catch_up(study.trials())
        board.handle({"event": "trial_started", "trial": 2, "text": "again"})
        done = replace(make_result(0.3), keys=keys)
        study.write_trial(2, {RATE: 0.001}, make_space().experiment, done)
        trial = study.trial(2)
        assert trial is not None
        board.trial_ended(trial)
    assert "0.3000 0002 one" in hparams_view(results).groups
    assert len(hparams_view(results).groups) == 5


def test_live_events_of_a_study_become_the_curves_of_its_trials(study: StudyFolder) -> None:
    results, rows = study.path.parent, study.rows()
    keys = {fold: store_fold(results, rows, fold) for fold in (0, 1)}
    with StudyBoard(study, results) as board:
        board.handle({"event": "message", "text": "of no trial"})
        for trial in (0, 1):
            board.handle({"event": "trial_started", "trial": trial, "text": ""})
            for fold, key in keys.items():
                for line in FoldStore(results).record(key)["history"]:
                    source = {"trial": trial, "fold": fold, "key": key, "experiment": "base"}
                    epochs = {"epochs": line["epoch"]}
                    board.handle({"event": "evaluation", **line, **epochs, **source})
    assert hparams_view(results).groups == {}, "no trial has ended"
    for trial in (0, 1):
        run = study.path / "board" / f"000{trial}"
        assert len(curve(run, "1 objective, mean over folds/KL >=10")) == 3
        assert EventFile(run, results).marked("fold1") == keys[1]


def test_a_removed_study_is_not_made_again(study: StudyFolder) -> None:
    with StudyBoard(study, study.path.parent) as board:
        shutil.rmtree(study.path)
        board.handle({"event": "trial_started", "trial": 0, "text": ""})
        board.handle({"event": "folds_reused", "trial": 0, "keys": {}})
    assert not study.path.exists()


def test_folds_are_exported_as_runs(study: StudyFolder, tmp_path: Path) -> None:
    end_trials(study)
    results, out = study.path.parent, tmp_path / "folds"
    assert export_folds(study, results, out) == 5
    runs = [str(file.parent.relative_to(out)) for file in sorted(out.glob("*/*/*"))]
    assert runs == [f"{n:04d}/fold_{k}" for n, k in ((0, 0), (0, 1), (1, 1), (4, 0), (4, 1))]
    for run in runs:
        stored = FoldStore(results).record(run[-1] * 64)["history"]
        points = scalars(out / run)
        assert min(points) == "1 objective/KL >=10"
        assert points["1 objective/KL >=10"] == [
            (7 + line["seconds"], 1000 * line["epoch"], pytest.approx(line["kl_10"]))
            for line in stored
        ]
        assert len(points["3 training/learning rate"]) == len(stored)
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert export_folds(study, results, out) == 5
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    assert export_folds(study, results, tmp_path / "best", [4]) == 2
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["0004"]


def test_folds_that_were_trained_anew_replace_the_old_ones(
    study: StudyFolder, tmp_path: Path
) -> None:
    end_trials(study)
    results, out = study.path.parent, tmp_path / "folds"
    export_folds(study, results, out)
    store = FoldStore(results)
    record = store.record("0" * 64)
    oof = store.read("0" * 64).oof
    changed = {**record, "history": record["history"][:1]}
    store.write("f" * 64, oof, changed, lambda path: path.write_bytes(b""))
    again = replace(make_result(0.5), keys={0: "f" * 64, 1: "gone"})
    study.write_trial(0, {RATE: 0.001}, make_space().experiment, again)
    assert export_folds(study, results, out, [0]) == 1, "a fold that is gone is skipped"
    assert len(scalars(out / "0000" / "fold_0")["1 objective/KL >=10"]) == 1


def test_folds_are_not_exported_into_the_results(study: StudyFolder) -> None:
    results = study.path.parent
    with refusal(
        ConfigError, "outside the results folder", got="folds", where="results", fix="Name another"
    ):
        export_folds(study, results, results / "one" / "folds")


def test_torch_is_not_imported() -> None:
    code = (
        "import sys, tempfile, pathlib, hms_ray.display.hparams, hms_ray.display.live_runs\n"
        "from hms_ray.display.tensorboard import RunEnd, RunLog\n"
        "folder = pathlib.Path(tempfile.mkdtemp())\n"
        "run = RunLog(folder, folder, 'kl_10', 2, None)\n"
        "run.end(RunEnd()); run.file.flush()\n"
        "assert 'torch' not in sys.modules and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
