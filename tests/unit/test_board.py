from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tensorboard import context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment
from tensorboard.plugins.hparams import list_session_groups as session_groups

from hms_ray.config.space import Parameter
from hms_ray.dataset.prepare import Prepared
from hms_ray.display import tensorboard
from hms_ray.display.tensorboard import declare_experiment, shown_value, write_fold
from hms_ray.evaluate.oof import make_oof
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.new import create_study
from hms_ray.study.row_scores import RowScores
from hms_ray.sweep.tensorboard import declare_study, write_trial_logs
from tests.study_data import RATE, make_result, make_space

PARAMETERS = {
    "training.loss": Parameter(values=["kl", "kl_log_votes"]),
    "training.learning_rate": Parameter(min=1e-4, max=1e-2, log=True),
    "training.stage_threshold": Parameter(min=3, max=8),
    "training.normalise_weights": Parameter(values=[True, False]),
    "input.views": Parameter(values={"both": ["panels", "statistics"], "one": ["panels"]}),
}


def record(step: int, kl: float, **changes: Any) -> dict[str, Any]:
    return {
        "stage": "train",
        "step": step,
        "seconds": 10.0 * step,
        "kl_all": kl,
        "kl_4": kl / 2,
        "kl_10": kl / 4,
        "train_loss": 2 * kl,
        "learning_rate": 1e-3,
        **changes,
    }


def values(loss: str, rate: float) -> dict[str, Any]:
    return {
        "training.loss": loss,
        "training.learning_rate": rate,
        "training.stage_threshold": 5,
        "training.normalise_weights": True,
        "input.views": "both",
    }


def scalars(folder: Path) -> dict[str, list[tuple[float, int, float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.wall_time, event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def hparams_view(root: Path) -> SimpleNamespace:
    """The experiment and session groups that TensorBoard's HParams page requests."""
    runs = plugin_event_multiplexer.EventMultiplexer()
    runs.AddRunsFromDirectory(str(root))
    runs.Reload()
    provider = data_provider.MultiplexerDataProvider(runs, str(root))
    plugin = backend_context.Context(
        base_plugin.TBContext(data_provider=provider, logdir=str(root), multiplexer=runs)
    )
    request = api_pb2.ListSessionGroupsRequest(
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING],
        slice_size=100,
    )
    no_context = context.RequestContext()
    groups = session_groups.Handler(no_context, plugin, "", request).run()
    experiment = get_experiment.Handler(
        no_context, plugin, "", api_pb2.GetExperimentRequest()
    ).run()
    return SimpleNamespace(
        experiment=experiment, groups={group.name: group for group in groups.session_groups}
    )


def metrics(group: Any) -> dict[str, float]:
    return {metric.name.tag: metric.value for metric in group.metric_values}


def test_curves_have_steps_and_wall_times(tmp_path: Path) -> None:
    write_fold(tmp_path, [record(5, 1.0), record(10, 0.5)], started_s=1000.0)
    found = scalars(tmp_path)
    assert found["kl_all"] == [(1050.0, 5, 1.0), (1100.0, 10, 0.5)]
    assert found["kl_10"] == [(1050.0, 5, 0.25), (1100.0, 10, 0.125)]
    assert found["train_loss"] == [(1050.0, 5, 2.0), (1100.0, 10, 1.0)]
    assert set(found) == {
        *("kl_all", "kl_4", "kl_10", "train_loss", "learning_rate"),
        *("kept/kl_all", "kept/kl_4", "kept/kl_10"),
    }
    assert found["kept/kl_all"] == [(1100.0, 10, 0.5)]


def test_missing_scores_are_skipped(tmp_path: Path) -> None:
    history = [
        record(5, 1.0, kl_10=None, train_loss=float("nan"), criterion=None),
        record(10, 0.5, kl_10=None, criterion=0.75),
    ]
    write_fold(tmp_path, history)
    found = scalars(tmp_path)
    assert "kl_10" not in found
    assert "kept/kl_10" not in found
    assert [step for _, step, _ in found["train_loss"]] == [10]
    assert [(step, value) for _, step, value in found["criterion"]] == [(10, 0.75)]


def test_writing_a_fold_again_replaces_it(tmp_path: Path) -> None:
    write_fold(tmp_path, [record(5, 1.0), record(10, 0.5)])
    write_fold(tmp_path, [record(5, 0.75)])
    assert [value for _, _, value in scalars(tmp_path)["kl_all"]] == [0.75]
    assert len(list(tmp_path.iterdir())) == 1


def test_equal_folds_have_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        session = {"group": "g", "values": values("kl", 1e-3), "parameters": PARAMETERS}
        write_fold(tmp_path / name, [record(5, 1.0)], started_s=7.0, **session)
    first, second = (next((tmp_path / name).iterdir()).read_bytes() for name in ("a", "b"))
    assert first == second


def write_study(results: Path, study: str, losses: list[str]) -> None:
    declare_experiment(results, PARAMETERS)
    for trial, loss in enumerate(losses):
        for fold in range(2):
            write_fold(
                results / study / "trials" / str(trial) / f"fold_{fold}",
                [record(5, 1.0), record(10, 0.5 + trial + fold)],
                group=f"{study}/{trial}",
                values=values(loss, 10.0 ** -(3 + trial)),
                parameters=PARAMETERS,
                state="complete" if (trial, fold) != (1, 1) else "failed",
            )


def test_trial_is_one_session_group_averaged_over_folds(tmp_path: Path) -> None:
    write_study(tmp_path, "first", ["kl", "kl_log_votes"])
    view = hparams_view(tmp_path)
    assert set(view.groups) == {"first/0", "first/1"}
    group = view.groups["first/1"]
    assert [(session.name, session.status) for session in group.sessions] == [
        ("first/trials/1/fold_0", api_pb2.STATUS_SUCCESS),
        ("first/trials/1/fold_1", api_pb2.STATUS_FAILURE),
    ]
    assert group.hparams["training.loss"].string_value == "kl_log_votes"
    assert group.hparams["training.learning_rate"].number_value == 1e-4
    assert group.hparams["training.normalise_weights"].bool_value is True
    assert group.hparams["input.views"].string_value == "both"
    # The folds' last scores are 1.5 and 2.5.
    assert metrics(group)["kept/kl_all"] == pytest.approx(2.0)
    assert metrics(group)["kept/kl_10"] == pytest.approx(0.5)


def test_kept_checkpoint_is_shown_instead_of_the_last(tmp_path: Path) -> None:
    declare_experiment(tmp_path, PARAMETERS)
    kept = {"kl_all": 0.5, "kl_4": None, "kl_10": 0.125}
    history = [record(5, 0.5), record(10, 0.9)]
    write_fold(tmp_path / "s/trials/0/fold_0", history, group="s/0", scores=kept)
    shown = metrics(hparams_view(tmp_path).groups["s/0"])
    assert shown == pytest.approx({"kept/kl_all": 0.5, "kept/kl_10": 0.125})


def test_declaration_has_domains_and_metrics(tmp_path: Path) -> None:
    write_study(tmp_path, "first", ["kl"])
    experiment = hparams_view(tmp_path).experiment
    infos = {info.name: info for info in experiment.hparam_infos}
    assert set(infos) == {"state", *PARAMETERS}
    assert all(info.differs for info in infos.values())
    choices = [value.string_value for value in infos["training.loss"].domain_discrete.values]
    assert choices == ["kl", "kl_log_votes"]
    labels = [value.string_value for value in infos["input.views"].domain_discrete.values]
    assert labels == ["both", "one"]
    interval = infos["training.learning_rate"].domain_interval
    assert (interval.min_value, interval.max_value) == (1e-4, 1e-2)
    assert infos["training.normalise_weights"].type == api_pb2.DATA_TYPE_BOOL
    tags = [metric.name.tag for metric in experiment.metric_infos]
    assert tags == ["kept/kl_10", "kept/kl_4", "kept/kl_all", "estimate"]


def test_studies_share_one_view(tmp_path: Path) -> None:
    write_study(tmp_path, "first", ["kl"])
    declare_experiment(
        tmp_path,
        {
            "model.name": Parameter(values=["a", "b"]),
            "training.loss": Parameter(values=["kl", "kl_capped_votes"]),
            "training.learning_rate": Parameter(min=1e-3, max=1e-1),
        },
    )
    second = tmp_path / "second/trials/0/fold_0"
    write_fold(second, [record(5, 1.0)], group="second/0", values={"model.name": "a"})
    view = hparams_view(tmp_path)
    assert set(view.groups) == {"first/0", "second/0"}
    infos = {info.name: info for info in view.experiment.hparam_infos}
    assert set(infos) == {"state", *PARAMETERS, "model.name"}
    losses = {value.string_value for value in infos["training.loss"].domain_discrete.values}
    assert losses == {"kl", "kl_log_votes", "kl_capped_votes"}
    interval = infos["training.learning_rate"].domain_interval
    assert (interval.min_value, interval.max_value) == (1e-4, 1e-1)


def test_declaring_again_changes_nothing(tmp_path: Path) -> None:
    declare_experiment(tmp_path, PARAMETERS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    declare_experiment(tmp_path, PARAMETERS)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_studies_declared_at_the_same_time_are_both_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, others = tensorboard._declared, []

    def overtaken(root: Path) -> Any:
        described = read(root)
        if not others:
            late = {"model.name": Parameter(values=["a", "b"])}
            others.append(threading.Thread(target=declare_experiment, args=(root, late)))
            others[0].start()
            # Ends before this study has written, unless a lock makes it wait.
            others[0].join(timeout=0.3)
        return described

    monkeypatch.setattr(tensorboard, "_declared", overtaken)
    declare_experiment(tmp_path, PARAMETERS)
    others[0].join()
    found = json.loads((tmp_path / "hparams.json").read_text())["parameters"]
    assert set(found) == {*PARAMETERS, "model.name"}


def test_path_searched_with_different_types_is_text(tmp_path: Path) -> None:
    path = "training.weight"
    rates = {path: Parameter(min=0.1, max=0.5)}
    words = {path: Parameter(values=["none", "low"])}
    found = []
    for parameters in (rates, words, words, rates):
        declare_experiment(tmp_path, parameters)
        found.append(json.loads((tmp_path / "hparams.json").read_text())["parameters"][path])
    assert found[0] == {"kind": "number", "bounds": [0.1, 0.5]}
    assert found[1:] == [{"kind": "text", "values": []}] * 3


def test_damaged_declaration_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "hparams.json").write_text("{")
    declare_experiment(tmp_path, PARAMETERS)
    assert set(json.loads((tmp_path / "hparams.json").read_text())["parameters"]) == set(PARAMETERS)


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


def test_fold_without_group_is_no_session(tmp_path: Path) -> None:
    write_fold(tmp_path / "fold_0", [record(5, 1.0)])
    assert hparams_view(tmp_path).groups == {}


def test_a_trial_of_any_state_is_in_the_view(tmp_path: Path, prepared: Prepared) -> None:
    """A pruned trial has the curves of its folds; one without a fold, a session of its own."""
    results = tmp_path / "results"
    study = create_study(results, "one", make_space(), prepared)
    rows, experiment, rate = study.rows(), make_space().experiment, {RATE: 0.001}
    stored = {"seconds": 9.0, "saved_s": 0.0, "started_s": 7.0, "history": [record(5, 1.0)]}
    for fold in (0, 1):
        oof = make_oof(rows[rows["fold"] == fold], fold, np.full((1, 6), 1 / 6))
        FoldStore(results).write(f"{fold}" * 64, oof, stored, lambda path: path.write_bytes(b""))
    keys = {fold: f"{fold}" * 64 for fold in (0, 1)}
    study.write_trial(0, rate, experiment, replace(make_result(0.5), keys=keys))
    pruned = replace(make_result(0.9), keys={1: keys[1]}, reused=())
    study.write_pruned(1, rate, experiment, pruned, "after 1 of 2 folds: worse", 0.75, 2)
    study.write_failure(2, rate, experiment, "the loss must be finite", state="diverged")
    study.write_failure(3, rate, experiment, "stopped by hms-ray stop", state="stopped")
    declare_study(study, results)
    searched = study.space().parameters
    for trial in study.trials():
        scores = RowScores(rows).of(trial.path) if trial.finished else None
        write_trial_logs(study, trial, rows, scores, searched, results)
    groups = hparams_view(results).groups
    states = {name: group.hparams["state"].string_value for name, group in groups.items()}
    assert states == {
        "one/0000": "complete",
        "one/0001": "pruned",
        "one/0002": "diverged",
        "one/0003": "stopped",
    }
    assert all(group.hparams[RATE].number_value == 0.001 for group in groups.values())
    assert metrics(groups["one/0000"])["estimate"] == 0.5
    assert metrics(groups["one/0001"])["estimate"] == 0.75
    # Row 1, of fold 1, has 12 votes; all predictions are uniform.
    assert metrics(groups["one/0001"])["kept/kl_10"] == pytest.approx(np.log(6))
    sessions = {name: [one.status for one in group.sessions] for name, group in groups.items()}
    assert sessions == {
        "one/0000": [api_pb2.STATUS_SUCCESS] * 2,
        "one/0001": [api_pb2.STATUS_SUCCESS],
        "one/0002": [api_pb2.STATUS_FAILURE],
        "one/0003": [api_pb2.STATUS_SUCCESS],
    }
    assert scalars(study.trial_path(1) / "fold_1")["kl_all"] == [(57.0, 5, 1.0)]


def test_torch_is_not_imported() -> None:
    code = (
        "import sys, tempfile, hms_ray.display.tensorboard as board\n"
        "board.write_fold(tempfile.mkdtemp(), [], group='g', values={'a': 1})\n"
        "assert 'torch' not in sys.modules and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
