"""A study's leaderboard from kept row scores, and the nested score of choosing its best trial."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hms_ray.cli.main import main
from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.dataset.prepare import PackRef, Prepared
from hms_ray.display.leaderboard import render
from hms_ray.ensemble.nested_choice import nested_choice
from hms_ray.errors import StudyError
from hms_ray.evaluate import calibration
from hms_ray.evaluate.calibration import recalibrated_rows, recalibrated_scores
from hms_ray.evaluate.intervals import paired_difference, sum_by_patient
from hms_ray.evaluate.metric import kl_report, kl_rows
from hms_ray.evaluate.oof import make_oof, probabilities_of, write_oof
from hms_ray.experiment.run import ExperimentResult
from hms_ray.study import row_scores as row_scores_module
from hms_ray.study.folder import StudyFolder
from hms_ray.study.leaderboard import Leaderboard
from hms_ray.study.new import create_study
from hms_ray.study.row_scores import ROW_SCORES_FILE
from tests.refused import refusal
from tests.study_data import RATE, make_result, make_space

N_PATIENTS = 12


def make_rows() -> pd.DataFrame:
    """Three rows of each patient: two of many votes, one of few."""
    number = np.arange(3 * N_PATIENTS)
    rows = pd.DataFrame(
        {
            "row_id": [f"{n}-0" for n in number],
            "eeg_id": number,
            "patient_id": number // 3,
            "total_votes": np.where(number % 3, 12, 3),
            "fold": number // 3 % 2,
        }
    )
    rows[list(TARGET_COLUMNS)] = np.random.default_rng(0).dirichlet(np.ones(6), len(rows))
    return rows


def make_study(place: Path, objective: str = "kl_10") -> StudyFolder:
    rows = make_rows()
    rows.to_parquet(place / "rows.parquet")
    packs = {"kaggle": PackRef(place / "pack", "p" * 64)}
    prepared = Prepared(place / "rows.parquet", packs, "r" * 64, "f" * 64, 2)
    space = make_space(metric=objective)
    return create_study(place / "results", "one", space, prepared)


def predictions(seed: int, noise: float = 0.4) -> np.ndarray:
    targets = make_rows()[list(TARGET_COLUMNS)].to_numpy()
    return (1 - noise) * targets + noise * np.random.default_rng(100 + seed).dirichlet(
        np.ones(6), len(targets)
    )


def finish(
    folder: StudyFolder, number: int, seed: int, optimistic: bool = False, noise: float = 0.4
) -> None:
    """Writes a finished trial with the predictions of a seed."""
    rows = make_rows()
    oof = make_oof(rows, rows["fold"], predictions(seed, noise))
    scores = kl_report(rows[list(TARGET_COLUMNS)], probabilities_of(oof), rows["total_votes"])
    result = ExperimentResult(scores, oof, {0: "a" * 64, 1: "b" * 64}, (), optimistic, 1.0)
    folder.write_trial(number, {RATE: 1e-3 * (1 + seed)}, make_space().experiment, result)


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    return make_study(tmp_path)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the trials whose predictions are read."""
    read, found = row_scores_module.read_trial_oof, list[str]()

    def recorded(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
        found.append(path.name)
        return read(path, rows)

    monkeypatch.setattr(row_scores_module, "read_trial_oof", recorded)
    return found


def recalibrated_row_kl(seed: int, objective: str) -> np.ndarray:
    rows = make_rows()
    found = recalibrated_rows(
        rows[list(TARGET_COLUMNS)], predictions(seed), rows["patient_id"], rows["total_votes"]
    )[objective]
    assert found is not None
    return found


def row_kl(seed: int) -> np.ndarray:
    return kl_rows(make_rows()[list(TARGET_COLUMNS)], predictions(seed))


def test_predictions_of_ended_trials_are_not_read_again(
    study: StudyFolder, reads: list[str]
) -> None:
    for number in range(3):
        finish(study, number, seed=number)
    reads.clear()
    board = Leaderboard(study)
    finish(study, 3, seed=3)
    assert len(reads) == 1, "the new trial's own process keeps its scores"
    reads.clear()
    board.add(3)
    board.write_csv()
    assert reads == []
    assert board.trials[3].scores["kl_all"] == pytest.approx(row_kl(3).mean())


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], Path]:
    """Folders of ended trials: three numbers, each finished with two predictions or failed."""
    found = {}
    for kind in ("a", "b", "failed"):
        study = make_study(tmp_path_factory.mktemp(kind))
        for number in range(3):
            if kind == "failed":
                study.write_failure(number, {RATE: 0.5}, make_space().experiment, "a fault")
            else:
                finish(study, number, seed=number + 3 * (kind == "b"))
            found[number, kind] = study.trial_path(number)
    return found


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["a", "b", "failed", "restart"])), max_size=6
    )
)
def test_trial_by_trial_it_equals_one_read_from_scratch(
    ended: dict[tuple[int, str], Path],
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[int, str]],
) -> None:
    study = make_study(tmp_path_factory.mktemp("study"))
    board = Leaderboard(study)
    for number, step in steps:
        if step == "restart":
            board = Leaderboard(study)
            continue
        place = study.trial_path(number)
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(ended[number, step], place)
        board.add(number)
        board.frame()
    # Scores that an earlier version did not keep.
    for file in study.path.glob(f"trials/*/{ROW_SCORES_FILE}"):
        file.unlink()
    fresh = Leaderboard(study)
    pd.testing.assert_frame_equal(board.frame(), fresh.frame(), check_exact=True)
    assert board.choice() == fresh.choice()


def test_ties_are_those_of_all_predictions(study: StudyFolder) -> None:
    for number in range(6):
        finish(study, number, seed=number % 5)
    frame = Leaderboard(study).frame().set_index("trial")
    counted = (make_rows()["total_votes"] >= 10).to_numpy()
    patients = make_rows()["patient_id"].to_numpy()[counted]
    scores = {f"{number:04d}": row_kl(number % 5)[counted] for number in range(6)}
    best = min(scores, key=lambda name: (scores[name].mean(), name))
    expected = {
        name: name != best and paired_difference(row, scores[best], patients).tie
        for name, row in scores.items()
    }
    assert frame.index[0] == best
    assert frame["tied"].to_dict() == expected
    assert 0 < sum(expected.values()) < 5


def test_a_trial_that_is_replaced_is_compared_again(study: StudyFolder) -> None:
    """A failure by mistake may become a success, also that of the best trial."""

    def tied(board: Leaderboard) -> dict[str, bool]:
        return dict(board.frame().set_index("trial")["tied"])

    for number in range(2):
        finish(study, number, seed=0)
    finish(study, 2, seed=5, noise=0.9)
    board = Leaderboard(study)
    assert tied(board) == {"0000": False, "0001": True, "0002": False}
    finish(study, 1, seed=5, noise=0.9)
    board.add(1)
    assert tied(board) == {"0000": False, "0001": False, "0002": False}
    finish(study, 0, seed=5, noise=0.9)
    board.add(0)
    assert tied(board) == {"0000": False, "0001": True, "0002": True}


def other_predictions(study: StudyFolder) -> None:
    rows = make_rows()
    write_oof(study.trial_path(0) / "oof.parquet", make_oof(rows, rows["fold"], predictions(9)))


def other_rows(study: StudyFolder) -> None:
    """The study's targets in another order: scores of seed 0 no longer hold."""
    rows = make_rows()
    rows[list(TARGET_COLUMNS)] = rows[list(TARGET_COLUMNS)].to_numpy()[:, ::-1]
    rows.to_parquet(study.path / "rows.parquet")


def cut_scores(study: StudyFolder) -> None:
    file = study.trial_path(0) / ROW_SCORES_FILE
    file.write_bytes(file.read_bytes()[:-40])


def scores_of_fewer_rows(study: StudyFolder) -> None:
    file = study.trial_path(0) / ROW_SCORES_FILE
    with np.load(file) as stored:
        content = dict(stored)
    content["kl"] = content["kl"][:-1]
    np.savez(file, **content)


def other_file(study: StudyFolder) -> None:
    (study.trial_path(0) / ROW_SCORES_FILE).write_text("not an archive")


def no_scores(study: StudyFolder) -> None:
    (study.trial_path(0) / ROW_SCORES_FILE).unlink()


@pytest.mark.parametrize(
    "damage",
    [other_predictions, other_rows, cut_scores, scores_of_fewer_rows, other_file, no_scores],
)
def test_scores_of_other_predictions_or_rows_are_made_again(
    study: StudyFolder, reads: list[str], damage: Callable[[StudyFolder], None]
) -> None:
    finish(study, 0, seed=0)
    damage(study)
    reads.clear()
    board = Leaderboard(study)
    trial = board.trials[0]
    targets = board.rows[list(TARGET_COLUMNS)]
    expected = kl_rows(targets, probabilities_of(trial.oof(board.rows)))
    assert reads == ["0000"]
    np.testing.assert_array_equal(Leaderboard(study).add(0), expected)
    assert reads == ["0000"], "they are kept"


def test_a_study_that_may_only_be_read_has_a_leaderboard(
    study: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(study, 0, seed=0)
    no_scores(study)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr(row_scores_module, "whole_file", refuse)
    assert Leaderboard(study).frame()["trial"].tolist() == ["0000"]


@pytest.mark.parametrize(("objective", "fewest"), [("kl_10", 10), ("kl_all", 0)])
def test_the_choice_is_scored_on_the_rows_of_the_objective(
    tmp_path: Path, objective: str, fewest: int
) -> None:
    study = make_study(tmp_path, objective)
    for number in range(5):
        finish(study, number, seed=number)
    study.write_failure(5, {}, make_space().experiment, "a fault")
    board = Leaderboard(study)
    choice = board.choice()
    counted = (make_rows()["total_votes"] >= fewest).to_numpy()
    rows = np.stack([row_kl(seed)[counted] for seed in range(5)])
    patients = make_rows()["patient_id"].to_numpy()
    corrected = np.stack([recalibrated_row_kl(seed, objective) for seed in range(5)])
    expected = nested_choice(
        sum_by_patient(rows, patients[counted]),
        patients,
        counted,
        recalibrated=sum_by_patient(corrected, patients[counted]),
    )
    best = int(rows.mean(axis=1).argmin())
    assert (choice.objective, choice.n_trials, choice.best_trial) == (objective, 5, best)
    assert choice.best_score == pytest.approx(rows[best].mean())
    assert choice.nested == pytest.approx(expected.nested.mean)
    assert (choice.low, choice.high) == (
        pytest.approx(expected.nested.low),
        pytest.approx(expected.nested.high),
    )
    assert choice.optimism == pytest.approx(expected.nested.mean - rows[best].mean())
    assert choice.optimism > 0
    assert sum(choice.times_chosen.values()) == 25
    assert choice.recalibrated == pytest.approx(expected.recalibrated)
    assert choice.recalibrated != pytest.approx(choice.nested)
    (study.trial_path(3) / "recalibrated_rows.npz").unlink()
    without = Leaderboard(study).choice()
    assert without == replace(choice, recalibrated=None)


def read_json(study: StudyFolder, capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main([*words, "--results", str(study.path.parent), "--json"]) == 0
    found: dict = json.loads(capsys.readouterr().out)
    return found


def printed(study: StudyFolder, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words, "--results", str(study.path.parent)]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_leaderboard_and_show_print_the_nested_score(
    study: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        finish(study, number, seed=number)
    choice = Leaderboard(study).choice()
    assert choice.nested is not None
    assert choice.optimism is not None
    for command in ("leaderboard", "show"):
        text = printed(study, capsys, command, "one")
        for part in (
            f"Best trial: {choice.best_trial:04d}, KL >=10 {choice.best_score:.4f}",
            f"Nested KL >=10 of the final choice: {choice.nested:.4f} [{choice.low:.4f}, ",
            f", {choice.high:.4f}], recalibrated {choice.recalibrated:.4f}. Each patient",
            f"Optimism of the best trial's score: {choice.optimism:+.4f} (nested KL minus its KL",
            "prices the final choice",
            "the search itself used these rows",
            "hold-out",
        ):
            assert part in text, command
        assert "Checkpoints were chosen" not in text
        found = read_json(study, capsys, command, "one")["choice"]
        assert (found["nested"], found["optimism"]) == (choice.nested, choice.optimism)
        assert (found["low"], found["high"]) == (choice.low, choice.high)
        assert (found["n_trials"], found["n_splits"], found["n_seeds"]) == (4, 5, 5)


def test_optimistic_checkpoints_are_named_beside_the_nested_score(
    study: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        finish(study, number, seed=number, optimistic=True)
    assert "Checkpoints were chosen on these rows too" in printed(study, capsys, "show", "one")
    assert read_json(study, capsys, "leaderboard", "one")["choice"]["optimistic"] is True


def test_without_a_choice_there_is_no_optimism(
    study: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "prices" not in printed(study, capsys, "leaderboard", "one")
    assert read_json(study, capsys, "show", "one")["choice"]["best_trial"] is None
    finish(study, 0, seed=0)
    for command in ("leaderboard", "show"):
        assert "One trial: nothing was chosen." in printed(study, capsys, command, "one")
        found = read_json(study, capsys, command, "one")["choice"]
        assert (found["n_trials"], found["nested"], found["optimism"]) == (1, None, None)


def test_rows_of_one_patient_have_no_nested_score(
    tmp_path: Path, prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    study = create_study(tmp_path / "results", "two_rows", make_space(), prepared)
    for number in range(2):
        study.write_trial(number, {}, make_space().experiment, make_result(0.5 + number))
    text = printed(study, capsys, "leaderboard", "two_rows")
    assert "No nested KL >=10 of the final choice: rows with >= 10 votes are of 1 patient" in text


def test_a_damaged_trial_is_skipped_if_its_error_is_handled(study: StudyFolder) -> None:
    for number in range(3):
        finish(study, number, seed=number)
    (study.trial_path(0) / "result.json").write_text("{")
    (study.trial_path(1) / "oof.parquet").write_bytes(b"PAR1")
    errors: list[str] = []
    board = Leaderboard(study, on_damaged=lambda error: errors.append(str(error)))
    assert board.frame()["trial"].tolist() == ["0002"]
    assert ["0000" in errors[0], "0001" in errors[1]] == [True, True]
    with refusal(StudyError, "result.json must be readable", where="0000"):
        Leaderboard(study)


@pytest.fixture
def older(study: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> StudyFolder:
    """A study of three trials; an earlier version wrote trial 2, and nothing may be fitted."""
    for number in range(3):
        finish(study, number, seed=number)
    file = study.trial_path(2) / "result.json"
    result = json.loads(file.read_text())
    del result["recalibrated"]
    file.write_text(json.dumps(result))

    def refuse(*_: object) -> None:
        raise AssertionError("scores are recalibrated in the trial's own process alone")

    monkeypatch.setattr(calibration, "recalibrated_scores", refuse)
    return study


def recalibrated(seed: int) -> dict[str, float | None]:
    rows = make_rows()
    targets = rows[list(TARGET_COLUMNS)]
    return recalibrated_scores(targets, predictions(seed), rows["patient_id"], rows["total_votes"])


def test_every_score_stands_beside_the_same_recalibrated(
    older: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    board = Leaderboard(older)
    board.write_csv()
    table = pd.read_csv(older.path / "leaderboard.csv", dtype={"trial": str}).set_index("trial")
    stored = {one["trial"]: one for one in read_json(older, capsys, "leaderboard", "one")["trials"]}
    scores = [name for name in table.columns if name.startswith("kl_")]
    pairs = [(name, f"{name}_recalibrated") for name in ("kl_10", "kl_all", "kl_4")]
    assert scores == [name for pair in pairs for name in pair]
    for seed, trial in enumerate(("0000", "0001")):
        for name, kl in recalibrated(seed).items():
            assert table.at[trial, f"{name}_recalibrated"] == pytest.approx(kl, rel=1e-9)
            assert stored[trial][f"{name}_recalibrated"] == pytest.approx(kl, rel=1e-12)
    assert table.loc["0002", [name for _, name in pairs]].isna().all()
    assert stored["0002"]["kl_10_recalibrated"] is None
    text = render(board.frame(), width=160)
    lines = {cells[1]: cells for cells in map(str.split, text.splitlines()) if len(cells) > 3}
    assert lines["0001"][3] == f"{recalibrated(1)['kl_10']:.4f}"
    assert lines["0002"][3] == "-"
    assert "recalibrated: after six class biases and a temperature, fitted on other" in text


def test_a_trial_is_shown_with_its_recalibrated_scores(
    older: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    known = recalibrated(0)
    line = f"KL all {known['kl_all']:.4f}, KL >=4 {known['kl_4']:.4f}, KL >=10 {known['kl_10']:.4f}"
    assert f"recalibrated {line}" in printed(older, capsys, "show", "one/0")
    assert read_json(older, capsys, "show", "one/0")["recalibrated"] == known
    assert "recalibrated - cost" in printed(older, capsys, "show", "one/2")
    best = Leaderboard(older).finished[0]
    kl = "-" if best.number == 2 else f"{recalibrated(best.number)['kl_10']:.4f}"
    assert f", recalibrated {kl}." in printed(older, capsys, "show", "one")


def test_recalibrated_scores_do_not_depend_on_the_order_of_predictions(study: StudyFolder) -> None:
    rows = make_rows()
    oof = make_oof(rows, rows["fold"], predictions(0)).iloc[::-1].reset_index(drop=True)
    result = ExperimentResult({"kl_all": 0.5}, oof, {0: "a" * 64}, (), False, 1.0)
    study.write_trial(0, {}, make_space().experiment, result)
    trial = study.trial(0)
    assert trial is not None
    assert trial.recalibrated == recalibrated(0)
