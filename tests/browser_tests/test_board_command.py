"""TensorBoard as ``hms-ray board`` opens it, in a browser."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from hms_ray.display.hparams import session_name
from hms_ray.study.folder import StudyFolder
from tests.large_study import write_large_study

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
SVG = "&forceSVG=true"
"""TensorBoard otherwise draws by WebGL, into what a test cannot read."""


@dataclass(frozen=True)
class Served:
    study: StudyFolder
    address: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A study of eight trials, shown by the command line."""
    results = tmp_path_factory.mktemp("board") / "results"
    study = write_large_study(results, "many", n_trials=8, n_folds=2, n_rows=200)
    words = ["board", "many", "--results", str(results)]
    with subprocess.Popen(
        [sys.executable, "-m", "hms_ray", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        lines = []
        while not lines or not lines[-1].startswith("http://127.0.0.1:"):
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        assert lines[-2] == "TensorBoard of many: 8 trials\n"
        yield Served(study, lines[-1].strip())
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")


def with_svg(address: str, **more: str) -> str:
    """The address with SVG charts and further parameters."""
    front, _, fragment = address.partition("#")
    return f"{front}{SVG}{''.join(f'&{name}={value}' for name, value in more.items())}#{fragment}"


def test_the_address_opens_with_the_objective_pinned_and_trials_coloured(
    page: Page, served: Served
) -> None:
    page.goto(with_svg(served.address))
    pinned = page.locator("metrics-pinned-view card-view")
    pinned.locator("line-chart svg path").nth(7).wait_for(state="attached")
    assert "1 objective" in pinned.inner_text()
    assert "KL >=10" in pinned.inner_text()
    runs = page.locator("runs-data-table tb-data-table-content-row")
    # Failed and pruned trials are there too.
    assert runs.count() == 8
    strokes = pinned.locator("line-chart svg path").evaluate_all(
        "paths => paths.map(path => getComputedStyle(path).stroke)"
    )
    assert len(set(strokes)) >= 6


def test_runs_are_filtered_by_the_address_and_by_typing(page: Page, served: Served) -> None:
    page.goto(with_svg(served.address, runFilter="000[12]"))
    runs = page.locator("runs-data-table tb-data-table-content-row")
    runs.nth(1).wait_for()
    assert runs.count() == 2
    page.get_by_role("textbox", name="Filter runs (regex)").click()
    page.keyboard.press("Control+A")
    page.keyboard.type("0003")
    page.wait_for_function(
        "document.querySelectorAll('runs-data-table tb-data-table-content-row').length === 1"
    )
    assert "0003" in runs.inner_text()


def test_hparams_has_the_leaderboards_numbers_best_first(page: Page, served: Served) -> None:
    page.goto(served.address.partition("?")[0] + "#hparams")
    best = served.study.finished_trials()
    names = [
        session_name("many", trial.number, trial.state, trial.scores["kl_10"]) for trial in best
    ]
    page.get_by_text(names[0]).first.wait_for()
    tops = [page.get_by_text(name).bounding_box()["y"] for name in names]  # type: ignore[index]
    assert tops == sorted(tops)
    score = best[0].scores["kl_10"]
    assert page.get_by_text(re.compile(rf"^\s*{score:.5g}")).count() >= 1


def test_the_images_of_the_best_trial_are_shown(page: Page, served: Served) -> None:
    page.goto(served.address.partition("?")[0] + "?tagFilter=images#timeseries")
    images = page.locator("image-card img")
    images.nth(3).wait_for()
    page.wait_for_function(
        "[...document.querySelectorAll('image-card img')].every(one => one.naturalWidth >= 900)"
    )
    best = served.study.finished_trials()[0].number
    assert f"{best:04d}" in page.locator("image-card").first.inner_text()


def test_other_hosts_names_are_refused(page: Page, served: Served) -> None:
    port = urlsplit(served.address).port
    address = f"http://127.0.0.1:{port}/data/runs"
    assert page.request.get(address).status == 200
    assert page.request.get(address, headers={"Host": f"evil.example:{port}"}).status == 403
