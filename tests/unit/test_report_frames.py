"""Frames and figures of a study, against its files and the metric."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.schema import CLASSES, PROBABILITY_COLUMNS, TARGET_COLUMNS
from hms_ray.errors import ConfigError, StudyError
from hms_ray.evaluate.intervals import clustered_interval
from hms_ray.evaluate.metric import kl_divergence, kl_rows
from hms_ray.evaluate.oof import read_oof
from hms_ray.report import figures, frames, search_figures
from hms_ray.report.study_data import StudyData
from hms_ray.report.trial_figures import mean_curves
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.folder import StudyFolder
from hms_ray.study.leaderboard import Leaderboard
from tests.large_study import Ends, write_large_study
from tests.refused import refusal

N_TRIALS, N_FOLDS = 10, 3


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    results = tmp_path_factory.mktemp("place") / "results"
    ends = Ends(pruned=5, diverged=6, failed=7)
    return write_large_study(results, n_trials=N_TRIALS, n_folds=N_FOLDS, n_rows=300, ends=ends)


@pytest.fixture(scope="module")
def data(study: StudyFolder) -> StudyData:
    return StudyData(study)


def predicted(study: StudyFolder, number: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Rows with >= 10 votes, their targets and a trial's predictions."""
    rows = study.rows()
    oof = read_oof(study.trial_path(number) / "oof.parquet", rows)
    counted = (rows["total_votes"] >= 10).to_numpy()
    return (
        rows[counted],
        rows.loc[counted, list(TARGET_COLUMNS)].to_numpy(),
        oof.loc[counted, list(PROBABILITY_COLUMNS)].to_numpy(),
    )


def test_trials_are_the_leaderboard_with_intervals(study: StudyFolder) -> None:
    frame = frames.trials(study.path.name, study.path.parent)
    expected = Leaderboard(study).frame()
    pd.testing.assert_frame_equal(frame.drop(columns=["low", "high"]), expected)
    best = int(frame["trial"].iloc[0])
    rows, targets, shares = predicted(study, best)
    interval = clustered_interval(kl_rows(targets, shares), rows["patient_id"])
    assert frame.iloc[0][["low", "high"]].tolist() == pytest.approx([interval.low, interval.high])
    assert frame.loc[frame["rank"].isna(), "low"].isna().all()


def test_progress_counts_hours_of_training_and_the_best_so_far(data: StudyData) -> None:
    frame = frames.progress(data)
    assert frame["trial"].tolist() == list(range(N_TRIALS))
    best, hours = np.inf, 0.0
    for trial, row in zip(data.trials, frame.to_dict("records"), strict=True):
        hours += trial.fold_minutes / 60
        best = min(best, trial.scores["kl_10"] if trial.finished else np.inf)
        assert (row["best"], row["hours"]) == pytest.approx((best, hours))
    assert frame["estimate"].notna().sum() == 2


def test_curves_count_epochs_over_stages(data: StudyData, study: StudyFolder) -> None:
    frame = frames.curves(data, trials=[0])
    history = FoldStore(study.path.parent).record(data.trials[0].keys[1])["history"]
    fold = frame[frame["fold"] == 1]
    assert fold["epoch"].tolist() == [0.5 * n for n in range(1, 19)]
    assert fold["kl_10"].tolist() == [record["kl_10"] for record in history]
    assert set(frame["fold"]) == {0, 1, 2}
    every = frames.curves(data)
    assert set(every.loc[every["trial"] == 4, "fold"]) == {0, 1}
    made = figures.fold_curves(frame, "kl_10")
    assert [shape["x0"] for shape in made["layout"]["shapes"]] == [3.0]
    assert [note["text"] for note in made["layout"]["annotations"]] == ["stage noisy", "stage good"]
    assert [trace["name"] for trace in made["data"]] == [
        *("fold 0", "fold 1", "fold 2"),
        "mean over folds",
    ]
    assert made["data"][-1]["y"][4] == pytest.approx(
        frame.loc[frame["epoch"] == 2.5, "kl_10"].mean(), abs=1e-4
    )


def test_a_mean_over_folds_is_of_evaluations_that_all_folds_have() -> None:
    both = [
        (0, 0, 1.0, 0.8),
        (0, 1, 1.0, 0.6),
        (0, 1, 1.5, 9.0),
        (0, 0, 2.0, 0.4),
        (0, 1, 2.0, 0.2),
    ]
    frame = pd.DataFrame(both, columns=["trial", "fold", "epoch", "kl_10"])
    mean = mean_curves(frame.assign(stage="a"), "kl_10")
    assert mean["epoch"].tolist() == [1.0, 2.0]
    assert mean["kl_10"].tolist() == pytest.approx([0.7, 0.3])


def test_parts_of_the_kl_sum_to_it(data: StudyData, study: StudyFolder) -> None:
    frame = frames.kl_parts(data, n_best=1)
    best = data.finished[0].number
    _, targets, shares = predicted(study, best)
    parts = frame.loc[frame["by"] == "class", "kl"]
    assert parts.sum() == pytest.approx(kl_divergence(targets, shares))
    tier = frame[(frame["by"] == "tier") & (frame["part"] == ">=10")]
    assert tier["kl"].iloc[0] == pytest.approx(kl_divergence(targets, shares))


def test_pictures_of_predictions_use_the_rows_of_the_objective(
    data: StudyData, study: StudyFolder
) -> None:
    number = data.finished[1].number
    rows, targets, shares = predicted(study, number)
    confusion = frames.confusion(data, trial=number)
    lrda = confusion[(confusion["true"] == "LRDA") & (confusion["predicted"] == "Other")].iloc[0]
    assert lrda["share"] == pytest.approx(np.average(shares[:, 5], weights=targets[:, 3]))
    assert lrda["rows"] == pytest.approx(targets[:, 3].sum())
    bins = frames.reliability(data, trial=number)
    assert bins.groupby("name")["rows"].sum().tolist() == [len(rows)] * 6
    areas = frames.discrimination(data, trial=number)
    assert areas["name"].tolist() == list(CLASSES)
    assert set(areas["rows"]) == {len(rows)}
    assert set(areas["patients"]) == {rows["patient_id"].nunique()}
    assert (areas["auroc_low"] < areas["auroc"]).all()
    correlation = frames.error_correlation(data)
    best = predicted(study, data.finished[0].number)[2] - targets
    second = shares - targets
    expected = (best * second).sum() / np.sqrt((best**2).sum() * (second**2).sum())
    assert correlation.iloc[0, 1] == pytest.approx(expected)


def test_cost_and_faults(data: StudyData, study: StudyFolder) -> None:
    (study.path / "log.txt").write_text(
        "2026-01-01T00:00:00.000Z INFO hms_ray: start\n"
        "2026-01-01T00:00:01.000Z WARNING hms_ray.sweep: trial 3 was lost\n"
        "Traceback (most recent call last):\n"
        "2026-01-01T00:00:02.000Z WARNING hms_ray.sweep: trial 4 was lost\n"
    )
    faults = frames.faults(data).to_dict("records")
    assert faults[0]["what"] == "diverged"
    assert faults[0]["where"] == "trials 0005"
    assert faults[1]["text"].startswith("RuntimeError: CUDA")
    assert faults[2]["times"] == 2
    assert faults[2]["text"] == "trial 4 was lost"
    assert faults[2]["where"] == "last at 2026-01-01T00:00:02.000Z"
    worker = study.path / "logs" / "host-1.txt"
    worker.parent.mkdir()
    worker.write_text(
        "2026-01-01T00:00:03.000Z INFO hms_ray.train: [trial 3 rank 0] resumed at stage good, "
        "epoch 2\n2026-01-01T00:00:04.000Z INFO hms_ray.sweep: group-1 was lost: its node\n"
        "2026-01-01T00:00:05.000Z INFO hms_ray.train: stage good started\n"
    )
    restarts = frames.faults(data).to_dict("records")[3:]
    assert [one["what"] for one in restarts] == ["restart", "restart"]
    assert restarts[1]["text"] == "group-1 was lost: its node"
    shutil.rmtree(worker.parent)
    (study.path / "log.txt").unlink()
    cost = frames.cost(data).iloc[0]
    n_folds = sum(len(trial.keys) for trial in data.trials)
    assert cost["n_folds"] == n_folds
    minutes = sum(trial.fold_minutes for trial in data.trials if trial.keys)
    assert cost["device_hours"] == pytest.approx(minutes / 60, rel=0.1)


def test_weights_of_a_blend(study: StudyFolder) -> None:
    assert frames.blend_weights(study).empty
    blend = {
        "method": "simplex",
        "members": [{"name": "0001"}, {"name": "0002"}],
        "nested": {},
        "in_sample": {},
        "weights": {"0001": 0.3, "0002": 0.7},
        "nested_weights": {"0001": [0.2, 0.4], "0002": [0.6, 0.8]},
    }
    file = study.path / "blend" / "blend.json"
    file.parent.mkdir()
    file.write_text(json.dumps(blend))
    frame = frames.blend_weights(study)
    assert frame.to_dict("list") == {
        "model": ["0002", "0001"],
        "weight": [0.7, 0.3],
        "nested_low": [0.6, 0.2],
        "nested_high": [0.8, 0.4],
    }
    figure = figures.blend_weights(frame)
    assert list(figure.data[1].x) == pytest.approx([0.7, 0.3])
    assert list(figure.data[1].error_x.array) == pytest.approx([0.1, 0.1])
    file.unlink()
    file.parent.rmdir()


def test_search_figures_leave_the_journal_alone(data: StudyData) -> None:
    before = data.folder.journal.read_bytes()
    study = search_figures.optuna_study(data)
    assert study is not None
    values = sorted(trial.values[0] for trial in study.trials)
    assert values == sorted(trial.scores["kl_10"] for trial in data.finished)
    assert set(study.best_params) == {"learning_rate", "weight_decay", "loss", "dropout"}
    bars = search_figures.importance(study).data[0]
    assert sum(bars.x) == pytest.approx(1)
    slices = search_figures.slices(study, "kl_10")
    assert len(slices.data) == 4
    assert set(slices.data[2].x) <= {"kl", "kl_log_votes", "kl_capped_votes"}
    assert set(slices.data[2].x) <= set(slices.layout.xaxis3.categoryarray)
    figure = figures.parallel(frames.trials(data), "kl_10", {"training.learning_rate"})
    axes = {axis.label: axis for axis in figure.data[0].dimensions}
    assert axes["learning_rate"].ticktext == ("0.0001", "0.001", "0.01")
    assert set(axes["loss"].ticktext) <= {"kl", "kl_log_votes", "kl_capped_votes"}
    assert data.folder.journal.read_bytes() == before


def test_figures_differ_without_colour(data: StudyData) -> None:
    curves = figures.curves(frames.curves(data, trials=[0]), "kl_10", 0)
    assert len({trace.line.dash for trace in curves.data}) == N_FOLDS + 1
    bars = figures.kl_parts(frames.kl_parts(data), "class")
    assert len({trace.marker.pattern.shape for trace in bars.data}) == len(bars.data) == 3
    areas = figures.discrimination(frames.discrimination(data))
    assert len({trace.marker.symbol for trace in areas.data}) == 3


def test_a_study_must_exist_and_plotly_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refusal(StudyError, "the study must exist", got="nothing"):
        frames.trials("nothing", tmp_path)
    monkeypatch.setattr("hms_ray.report.figure_style.plotly_missing", lambda: True)
    fix = "Install it: pip install 'hms_ray[report]'"
    with refusal(ConfigError, "the report needs Plotly", got="not installed", fix=fix):
        figures.progress(pd.DataFrame(), "kl_10")


def test_the_example_of_the_page_runs(
    study: StudyFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / "results" / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shown: list[str] = []
    monkeypatch.setattr(
        "plotly.graph_objects.Figure.show", lambda figure: shown.append(figure.data[0].type)
    )
    monkeypatch.chdir(study.path.parents[1])
    exec(example.replace("NAME", study.name), {})
    assert shown == ["heatmap", "scatter"]
