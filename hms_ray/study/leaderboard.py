"""A study's leaderboard on the terminal."""

from __future__ import annotations

from pathlib import Path

from hms_ray.report.leaderboard import render
from hms_ray.study.folder import StudyFolder


def print_leaderboard(study: str | Path, results: str | Path) -> None:
    """Prints a study's trials, best first, and why others failed.

    Raises:
        StudyError: where there is no such study.
    """
    folder = StudyFolder.open(study, results)
    print(render(folder.leaderboard()))
    for trial in folder.trials():
        if not trial.finished:
            print(f"trial {trial.number:04d} failed: {trial.reason}")
