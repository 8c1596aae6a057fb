"""``studies``, ``show`` and ``leaderboard``: what is printed, and the same as JSON."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hms_ray.cli.main import main
from hms_ray.errors import StudyError
from hms_ray.evaluate.oof import make_oof
from hms_ray.ladder.folder import write_ladder
from hms_ray.search.outcomes import STOP_REASON
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.folder import StudyFolder
from hms_ray.study.new import create_study
from tests.ladder_data import ABOUT, ladder
from tests.refused import refusal
from tests.study_data import RATE, make_result, make_space, prepared_rows


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A study of two finished trials and a failed one, and a ladder."""
    results, space = tmp_path / "results", make_space()
    folder = create_study(results, "first", space, prepared_rows(tmp_path))
    training = space.experiment.training
    for number, rate in enumerate([0.001, 0.002]):
        changed = training.model_copy(update={"learning_rate": rate})
        experiment = space.experiment.model_copy(update={"training": changed})
        folder.write_trial(number, {RATE: rate}, experiment, make_result(0.6 - number / 10))
    folder.write_failure(2, {RATE: 0.01}, space.experiment, "the loss must be finite", "Traceback")
    command = ["/bin/hms-ray", "sweep", "my space.yaml"]
    folder.record_run({"started": "2026-01-02T03:04:05+00:00", "command": command})
    write_ladder(results / "rungs", *ladder(), {**ABOUT, "failed": {"x": "y"}})
    return results


@pytest.fixture
def as_json(results: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command with ``--json`` and reads its whole output."""

    def call(*words: str) -> Any:
        assert main([*words, "--results", str(results), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return call


def output(results: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words, "--results", str(results)]) == 0
    return capsys.readouterr().out


def test_studies_and_ladders_are_listed(
    results: Path, as_json: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {entry["name"]: entry for entry in as_json("studies")}
    first, rungs = found["first"], found["rungs"]
    assert (first["kind"], first["finished"], first["failed"]) == ("study", 2, 1)
    assert (first["objective"], first["best_trial"], first["best_score"]) == ("kl_10", 1, 0.5)
    assert (rungs["kind"], rungs["finished"], rungs["failed"]) == ("ladder", len(ladder()[1]), 1)
    text = output(results, capsys, "studies")
    assert "KL >=10 0.5000" in text
    assert first["written"][:16].replace("T", " ") in text


def test_a_study_that_cannot_be_read_is_listed_with_its_fault(
    results: Path, as_json: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "first" / "trials" / "0001" / "result.json").write_text("{", encoding="utf-8")
    (results / "rungs" / "steps.json").write_text("{}", encoding="utf-8")
    problems = {entry["name"]: entry["problem"] for entry in as_json("studies")}
    assert "result.json" in problems["first"]
    assert "no steps" in problems["rungs"]
    assert "first cannot be read" in output(results, capsys, "studies")


def test_a_results_folder_without_studies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error_line: Callable[..., str]
) -> None:
    assert main(["studies", "--results", str(tmp_path)]) == 0
    assert "no studies" in capsys.readouterr().out
    line = error_line("studies", "--results", tmp_path / "none")
    assert "results folder must exist" in line
    assert "Name it with --results DIR" in line


def test_a_study_is_shown(results: Path, as_json: Any, capsys: pytest.CaptureFixture[str]) -> None:
    study = as_json("show", "first")
    assert (study["rows"], study["patients"], study["folds"]) == (2, 2, 2)
    assert study["searched"] == {RATE: "0.0001 to 0.01, log"}
    assert study["best_values"] == {RATE: 0.002}
    assert study["minutes"] == 3.0
    assert study["command"] == "hms-ray sweep 'my space.yaml'"
    text = output(results, capsys, "show", "first")
    for part in (
        "2 finished, 1 failed; 20 planned",
        "Best trial: 0001, KL >=10 0.5000",
        "0.0001 to",
    ):
        assert part in text
    last = "\nLast command\nhms-ray sweep 'my space.yaml'\nnext: hms-ray leaderboard first "
    assert text.endswith(f"{last}--results {results}\n")


def test_a_trial_is_shown_with_its_folds_and_differences(
    results: Path,
    as_json: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trial = as_json("show", "first/0")
    assert (trial["rank"], trial["best_trial"], trial["scores"]["kl_10"]) == (2, 1, 0.6)
    assert trial["differences"] == {RATE: [0.002, 0.001]}
    scores = [fold["scores"] for fold in trial["folds"]]
    assert scores[0] == {"kl_all": pytest.approx(math.log(6)), "kl_4": None, "kl_10": None}
    assert scores[1]["kl_10"] == pytest.approx(math.log(6))
    assert [fold["reused"] for fold in trial["folds"]] == [False, True]
    assert [fold["minutes"] for fold in trial["folds"]] == [None, None], "not in the fold store"
    history = [
        {"stage": "noisy", "stage_index": 0, "epoch": 0.5, "criterion": 0.1},
        {"stage": "good", "stage_index": 1, "epoch": 0.5, "criterion": None},
        {"stage": "good", "stage_index": 1, "epoch": 1.0, "criterion": 0.3},
        {"stage": "good", "stage_index": 1, "epoch": 1.5, "criterion": 0.3},
    ]
    record = {"seconds": 60.0, "saved_s": 30.0, "history": history}
    monkeypatch.setattr(FoldStore, "record", lambda self, key: record)
    folds = as_json("show", "first/0")["folds"]
    assert {(fold["minutes"], fold["checkpoint"]) for fold in folds} == {(1.5, "good 1")}
    text = output(results, capsys, "show", str(results / "first" / "0000"))
    assert "good 1" in text
    for part in ("2 by KL >=10", "1.5 minutes of training, 0.5 of them saved", "fold 1 from"):
        assert part in text
    assert "It is the best trial." in output(results, capsys, "show", "first/1")


def test_a_failed_trial_shows_why(
    results: Path, as_json: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = as_json("show", "first/2")
    assert (trial["state"], trial["rank"], trial["scores"]) == ("failed", None, {})
    assert trial["reason"] == "the loss must be finite"
    assert Path(trial["error_file"]).read_text(encoding="utf-8") == "Traceback"
    assert trial["error_file"] in output(results, capsys, "show", "first/2").replace("\n", "")


def add_others(results: Path) -> StudyFolder:
    """A pruned, a diverged and a stopped trial more; the pruned one has one of two folds."""
    folder, experiment = StudyFolder.open("first", results), make_space().experiment
    rows, store = folder.rows(), FoldStore(results)
    record = {"seconds": 90.0, "saved_s": 0.0, "started_s": 7.0, "history": [], "timing": {}}
    oof = make_oof(rows[1:], 1, np.full((1, 6), 1 / 6))
    store.write("c" * 64, oof, record, lambda path: path.write_bytes(b"w"))
    result = replace(make_result(0.9), keys={1: "c" * 64}, reused=())
    reason = "after 1 of 2 folds: worse"
    folder.write_pruned(3, {RATE: 0.02}, experiment, result, reason, 0.91, 2)
    folder.write_failure(4, {RATE: 0.03}, experiment, "the loss must be finite", state="diverged")
    folder.write_failure(5, {RATE: 0.04}, experiment, STOP_REASON, state="stopped")
    return folder


def test_every_state_of_a_trial_is_counted_and_shown(
    results: Path, as_json: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    add_others(results)
    states = ("finished", "pruned", "diverged", "stopped", "failed")
    first = next(entry for entry in as_json("studies") if entry["name"] == "first")
    assert [first[state] for state in states] == [2, 1, 1, 1, 1]
    headings = output(results, capsys, "studies").splitlines()[0].split()
    assert headings[2:7] == list(states)
    text = output(results, capsys, "show", "first")
    assert "2 finished, 1 pruned, 1 diverged, 1 stopped, 1 failed; 20 planned" in text
    saved = "1 trial pruned: 1 fold not trained, about 0.025 hours saved"
    assert saved in text
    board = output(results, capsys, "leaderboard", "first")
    assert saved in board
    assert "pruned, estimate 0.9100" in board
    assert "\ntrial 0005 stopped by hms-ray stop\n" in board
    assert "trial 0004 diverged: the loss must be finite" in board
    assert board.count(" failed") == 2, "trial 2 alone, in the table and below it"
    records = as_json("leaderboard", "first")["trials"]
    assert {one["trial"]: one["estimate"] for one in records}["0003"] == 0.91


def test_a_pruned_and_a_stopped_trial_are_shown(
    results: Path, as_json: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    add_others(results)
    trial = as_json("show", "first/3")
    assert (trial["state"], trial["rank"], trial["estimate"]) == ("pruned", None, 0.91)
    (fold,) = trial["folds"]
    assert (fold["fold"], fold["scores"]["kl_10"]) == (1, pytest.approx(math.log(6)))
    text = output(results, capsys, "show", "first/3")
    for part in (
        "Trial 0003 of first: pruned.",
        "after 1 of 2 folds: worse",
        "KL >=10 0.9100 probably, with all folds",
        "1 fold not trained, about 1.5 minutes saved",
    ):
        assert part in text
    shutil.rmtree(FoldStore(results).path("c" * 64))
    assert "pruned" in output(results, capsys, "show", "first/3"), "its fold is gone"
    stopped = output(results, capsys, "show", "first/5")
    assert "Trial 0005 of first: stopped." in stopped
    assert "stopped by hms-ray stop" in stopped
    assert "traceback" not in stopped


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (2, "trial 0002, which failed: the loss must be finite"),
        (3, "trial 0003, which was pruned: after 1 of 2 folds: worse"),
        (5, "trial 0005, which was stopped by hms-ray stop"),
    ],
)
def test_a_trial_that_is_not_complete_is_refused_with_its_state(
    results: Path, number: int, text: str
) -> None:
    folder = add_others(results)
    with refusal(
        StudyError, "the trial must have finished", got=text, where=str(folder.path), fix="Use a"
    ):
        folder.finished_trial(number)


def test_the_leaderboard_has_json(results: Path, as_json: Any) -> None:
    board = as_json("leaderboard", "first")
    assert (board["study"], board["objective"]) == ("first", "kl_10")
    assert [trial["trial"] for trial in board["trials"]] == ["0001", "0000", "0002"]
    assert board["trials"][0][RATE] == 0.002
    assert board["trials"][2]["reason"] == "the loss must be finite"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["show", "frist"], ["frist", "did you mean first?"]),
        (["show", "frist/1"], ["frist", "did you mean first?"]),
        (["show", "first/3"], ["0003", "did you mean 0002?"]),
        (["leaderboard", "fist"], ["fist", "did you mean first?"]),
        (["show", "rungs"], ["a ladder", "README.md"]),
        (["ladder", "pool", "rings"], ["rings", "did you mean rungs?"]),
    ],
)
def test_a_mistyped_name_names_its_nearest(
    words: list[str], parts: list[str], results: Path, error_line: Callable[..., str]
) -> None:
    text = error_line(*words, "--results", results)
    assert all(part in text for part in parts), text


def test_a_study_of_an_earlier_version_is_shown(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (results / "first").rglob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        assert "downsample:" in text
        file.write_text(text.replace("downsample:", "pool:"), encoding="utf-8")
    for words in (["studies"], ["show", "first"], ["show", "first/0"], ["leaderboard", "first"]):
        assert "first" in output(results, capsys, *words) or words[0] == "leaderboard"
