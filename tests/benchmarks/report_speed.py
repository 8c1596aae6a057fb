"""Speed and size of a study's report, and of ``leaderboard``.

``python -m tests.benchmarks.report_speed [--trials 200] [--folds 5] [--runs 3]`` writes a study
(see ``tests.large_study``), then times ``hms-ray report``, ``hms-ray leaderboard`` with all trials
and with six, each in a process of its own, and the first view of the report in Chromium: from
opening the file to the leaderboard on the screen and to the first drawn figure. Nothing is trained.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.browser import checked_page, started_browser
from tests.large_study import write_large_study


def line(name: str, values: Sequence[float], unit: str, goal: str) -> None:
    """Prints the median of some runs, and their spread."""
    spread = f"{min(values):.2f} to {max(values):.2f}"
    print(f"{name:<52}{statistics.median(values):>8.2f} {unit:<3}{spread:>16}   {goal}")


def timed(call: Callable[[], object], n_runs: int) -> list[float]:
    """Wall seconds of each run."""
    taken = []
    for _ in range(n_runs):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken


def command(*words: str) -> Callable[[], object]:
    """Runs a command in a new process, imports included."""
    call = [sys.executable, "-m", "hms_ray", *words]
    return lambda: subprocess.run(call, check=True, stdout=subprocess.DEVNULL)


def first_views(file: Path, n_runs: int) -> tuple[list[float], list[float]]:
    """Seconds until the leaderboard is on the screen, and until the first figure is drawn."""
    views, figures = [], []
    with started_browser() as browser:
        for _ in range(n_runs):
            with checked_page(browser, viewport={"width": 1280, "height": 1400}) as page:
                start = time.perf_counter()
                page.goto(file.as_uri(), wait_until="commit")
                page.locator("tbody tr").first.wait_for()
                views.append(time.perf_counter() - start)
                page.locator(".plot .main-svg").first.wait_for()
                figures.append(time.perf_counter() - start)
    return views, figures


def main(place: Path, n_trials: int, n_folds: int, n_runs: int) -> None:
    """Prints the table."""
    (made,) = timed(lambda: write_large_study(place, n_trials=n_trials, n_folds=n_folds), 1)
    write_large_study(place / "small", "six", n_trials=6, n_folds=n_folds)
    print(f"{n_trials} trials x {n_folds} folds, written in {made:.0f} s; median of {n_runs} runs")
    report = timed(command("report", "many", "--results", str(place)), n_runs)
    line("hms-ray report", report, "s", "30 s")
    file = place / "many" / "report.html"
    line("its size", [file.stat().st_size / 1e6], "MB", "15 MB")
    views, figures = first_views(file, n_runs)
    line("first view in Chromium: leaderboard", views, "s", "3 s")
    line("first view in Chromium: first figure", figures, "s", "3 s")
    all_trials = timed(command("leaderboard", "many", "--results", str(place)), n_runs)
    line(f"hms-ray leaderboard, {n_trials} trials", all_trials, "s", "3 s (500 trials)")
    six = timed(command("leaderboard", "six", "--results", str(place / "small")), n_runs)
    line("hms-ray leaderboard, 6 trials", six, "s", "1.5 s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary), chosen.trials, chosen.folds, chosen.runs)
