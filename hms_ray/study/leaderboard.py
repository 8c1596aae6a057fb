"""A study's leaderboard as text and as JSON."""

from __future__ import annotations

import json

from hms_ray.report.leaderboard import render
from hms_ray.study.folder import StudyFolder


def leaderboard_text(folder: StudyFolder) -> str:
    """The trials of a study, best first, and why others failed."""
    failed = [
        f"trial {trial.number:04d} failed: {trial.reason}"
        for trial in folder.trials()
        if not trial.finished
    ]
    return "\n".join([render(folder.leaderboard()), *failed])


def leaderboard_json(folder: StudyFolder) -> str:
    """The same as JSON: one record per trial with every value, and the reason of a failure."""
    table = folder.leaderboard()
    reasons = {f"{trial.number:04d}": trial.reason for trial in folder.trials()}
    table["reason"] = table["trial"].map(reasons)
    records = json.loads(table.to_json(orient="records", double_precision=15))
    return json.dumps(
        {"study": folder.name, "objective": folder.objective, "trials": records}, indent=1
    )
