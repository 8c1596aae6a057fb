"""Speed of ``hms-ray board``: its start, and TensorBoard's views in Chromium.

``python -m tests.benchmarks.board_speed [--trials 200] [--folds 5] [--runs 3]`` writes a study
(see ``tests.large_study``) and times, each in a new page:

- the start of the command until it prints the address: the first one writes the runs of all
  trials and the images of the best one;
- the HParams table, until the best trial stands in it;
- the charts, until the pinned one has a line for each trial with a curve (as SVG, because lines
  drawn by WebGL cannot be counted);
- a filter of ten runs that is typed, until the pinned chart shows no others.

Nothing is trained.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hms_ray.display.hparams import session_name
from hms_ray.study.folder import StudyFolder
from tests.benchmarks.report_speed import line, timed
from tests.browser import checked_page, started_browser
from tests.large_study import write_large_study

_LINES: Final = "metrics-pinned-view .series-view svg path"
_VISIBLE: Final = f"""n => [...document.querySelectorAll('{_LINES}')].filter(
    path => getComputedStyle(path).display !== 'none'
).length === n"""


@contextmanager
def served(results: Path) -> Iterator[tuple[str, float]]:
    """The address that the command prints, and after how many seconds."""
    start = time.perf_counter()
    words = [sys.executable, "-m", "hms_ray", "board", "many", "--results", str(results)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            address = next(one for one in process.stdout if one.startswith("http://"))
            yield address.strip(), time.perf_counter() - start
        finally:
            process.send_signal(signal.SIGINT)


def best_in_hparams(page: Any, address: str, best: str) -> None:
    """Opens the HParams table."""
    page.goto(f"{address.partition('?')[0]}#hparams")
    page.get_by_text(best).first.wait_for()


def filled(page: Any, address: str, n_lines: int) -> None:
    """Opens the charts."""
    page.goto(address.replace("#", "&forceSVG=true#"))
    page.wait_for_function(_VISIBLE, arg=n_lines)


def filtered(page: Any, n_lines: int) -> None:
    """Types a filter."""
    page.keyboard.type("001.")
    page.wait_for_function(_VISIBLE, arg=n_lines)


def main(place: Path, n_trials: int, n_folds: int, n_runs: int) -> None:
    """Prints the table."""
    study = write_large_study(place, n_trials=n_trials, n_folds=n_folds)
    print(f"{n_trials} trials x {n_folds} folds; median of {n_runs} runs")
    with served(place) as (_, first_s):
        pass
    line("start, runs and images written", [first_s], "s", "")
    views: list[float] = []
    charts: list[float] = []
    filters: list[float] = []
    with served(place) as (address, again_s), started_browser() as browser:
        line("start again", [again_s], "s", "")
        whole, few = curves(study), [n for n in curves(study) if 10 <= n < 20]
        first = study.finished_trials()[0]
        best = session_name("many", first.number, first.state, first.scores["kl_10"])
        for _ in range(n_runs):
            with checked_page(browser, viewport={"width": 1500, "height": 950}) as page:
                views += timed(lambda page=page: best_in_hparams(page, address, best), 1)
            with checked_page(browser, viewport={"width": 1500, "height": 950}) as page:
                charts += timed(lambda page=page: filled(page, address, len(whole)), 1)
                page.get_by_role("textbox", name="Filter runs (regex)").click()
                filters += timed(lambda page=page: filtered(page, len(few)), 1)
    line("HParams table in Chromium", views, "s", "3 s")
    line(f"pinned chart with {len(whole)} lines in Chromium", charts, "s", "")
    line("filtering runs in Chromium", filters, "s", "2 s")


def curves(study: StudyFolder) -> list[int]:
    """Trials that are shown and have a mean over all folds, which needs all folds."""
    n_folds = study.rows()["fold"].nunique()
    numbers = [trial.number for trial in study.trials() if len(trial.keys) == n_folds]
    best = [trial.number for trial in study.finished_trials()]
    return numbers if len(study.trials()) <= 499 else best[:499]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder), chosen.trials, chosen.folds, chosen.runs)
