"""A real TensorBoard beside a study whose trials are being trained."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hms_ray.dataset.prepare import Prepared
from hms_ray.display.tensorboard import objective_tag
from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.study.board import StudyBoard
from hms_ray.study.folder import StudyFolder
from hms_ray.study.leaderboard import Leaderboard
from hms_ray.study.new import create_study
from tests.board_study import end_trials
from tests.study_data import make_space

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


@pytest.fixture
def study(tmp_path: Path, prepared: Prepared) -> StudyFolder:
    return create_study(tmp_path / "results", "one", make_space(), prepared)


@pytest.fixture
def address(study: StudyFolder) -> Iterator[str]:
    """A TensorBoard of the results folder that reads it again every second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--logdir", str(study.path.parent), "--port", str(port), "--reload_interval", "1"]
    command = [sys.executable, "-m", "tensorboard.main", *words, "--host", "127.0.0.1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_until_served(address: str, path: str, text: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address + path) as answer:
                if text in answer.read().decode():
                    return
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"{path} has no {text}")


def evaluation(trial: int, fold: int, number: int) -> dict[str, Any]:
    epochs, score = number / 2, 1.0 / number + fold
    return {
        "event": "evaluation",
        "trial": trial,
        "fold": fold,
        "key": f"{fold}" * 64,
        "stage": "train",
        "stage_index": 0,
        "epoch": epochs,
        "epochs": epochs,
        "loss": "kl",
        "kl_all": score,
        "kl_4": score,
        "kl_10": score,
        "train_loss": score,
        "learning_rate": 1e-3,
        "seconds": 10.0 * number,
    }


def wait_for_last_point(page: Page, value: float, step: str) -> None:
    """Waits until the table below the first chart, that of the objective, has this last point."""
    page.wait_for_function(
        "words => {"
        " const table = document.querySelector('scalar-card tb-data-table');"
        " const found = table ? table.innerText.split(/\\s+/) : [];"
        " return words.every(word => found.includes(word)); }",
        arg=[f"{value:g}", step],
    )


def test_a_running_study_in_tensorboard(
    study: StudyFolder, address: str, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hms_ray.display import live_runs

    for name in ("LATE_S", "WRITE_EVERY_S"):
        monkeypatch.setattr(live_runs, name, 0.05)
    monkeypatch.setattr(live_runs.LiveRuns.__init__, "__defaults__", (0.05,))
    end_trials(study)
    tag = objective_tag("kl_10")
    with StudyBoard(study, study.path.parent) as board:
        board.catch_up(study.trials())
        board.handle({"event": "trial_started", "trial": 5, "text": ""})
        for fold in (0, 1):
            board.handle(evaluation(5, fold, 1))
        wait_until_served(address, "data/runs", "one/board/0005")
        page.goto(f"{address}?runFilter=0005#timeseries")
        wait_for_last_point(page, 1.5, "500")
        for fold in (0, 1):
            board.handle(evaluation(5, fold, 2))
        run = "data/plugin/scalars/scalars?run=one%2Fboard%2F0005&tag="
        wait_until_served(address, run + urllib.request.quote(tag), "1000")
        page.get_by_label("Reload data").or_(page.locator(".reload-button")).first.click()
        wait_for_last_point(page, 1.0, "1,000")
        shot(page, "curves")
        hparams_hold_the_leaderboard(study, page, address)


def hparams_hold_the_leaderboard(study: StudyFolder, page: Page, address: str) -> None:
    # Wide enough for all columns.
    page.set_viewport_size({"width": 3000, "height": 900})
    page.goto(f"{address}#hparams")
    page.wait_for_selector("vaadin-grid-cell-content:has-text('0.4500 0004')")
    cells: list[tuple[float, float, str]] = page.locator("vaadin-grid-cell-content").evaluate_all(
        "cells => cells.map(cell => { const place = cell.getBoundingClientRect();"
        " return [place.top, place.left, place.width ? cell.innerText.trim() : '']; })"
    )
    shot(page, "hparams")
    rows: dict[int, dict[int, str]] = {}
    for top, left, text in cells:
        if text:
            rows.setdefault(round(top / 10), {})[round(left)] = text
    heading = next(row for row in rows.values() if "Trial ID" in row.values())
    shown = {
        row[left]: {name: row.get(place, "") for place, name in heading.items()}
        for row in rows.values()
        if (left := min(row)) in heading and row is not heading
    }
    table = Leaderboard(study).frame()
    assert len(shown) == len(table) == 5, "the trial that is trained is not in the table"
    for trial in table.to_dict("records"):
        (row,) = (row for name, row in shown.items() if name.split()[1] == trial["trial"])
        assert row["State"] == trial["state"]
        for name, column in {**SCORE_NAMES, "minutes": "minutes"}.items():
            key = "fold_minutes" if name == "minutes" else name
            expected, found = trial.get(key), row[column]
            if expected is None or math.isnan(expected):
                assert found == ""
            else:
                assert float(found) == pytest.approx(expected, abs=1e-5)


def shot(page: Page, name: str) -> None:
    """Keeps a picture of the page, if a folder for it is named."""
    if folder := os.environ.get("HMS_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"tensorboard-{name}.png")
