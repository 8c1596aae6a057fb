"""A ladder's scores beside the published ones, each compared with its like."""

from __future__ import annotations

from typing import Final

from hms_ray.display.cells import score_text, signed
from hms_ray.display.ladder_report import LadderReport, StepLine
from hms_ray.display.tables import Column, Table
from hms_ray.evaluate.step_scores import STAGE_2

PUBLISHED_NOTE: Final = (
    "Published: out-of-fold KL on the real competition by the series that the ladder follows; "
    "public score: its KL on the public leaderboard. Its folds are not known, and its models "
    "have their full size. "
    "Published best: each fold's best evaluation (of 10 or 12) on the scored rows, which makes it "
    "optimistic. Published last: each fold's last evaluation, measured in the published logs."
)
LIKE_NOTE: Final = (
    "Like is compared with like: a step that keeps its last weights (kept: last) with published "
    "last, a step that keeps its best evaluation (kept: best) with published best."
)
SIMULATED_NOTE: Final = (
    "Our scores are on simulated data, so levels need not agree; compare the signs of differences."
)
STAGE_2_NOTE: Final = (
    "Figures of two-stage models were published on the rows of the second stage alone (5 or more "
    "votes, and unanimous rows of 4). They are compared with our scores on those rows and do not "
    "compare with scores on all rows."
)


def published_table(report: LadderReport, steps: Column) -> Table:
    """Our scores and the published figures.

    Args:
        report: of the ladder.
        steps: names of its steps.
    """
    lines = report.steps
    rows = {None: "-", "kl_all": "all", STAGE_2: "stage 2"}
    columns = [
        steps,
        Column("our KL all", [score_text(step.kl("kl_all")) for step in lines]),
        Column("our KL stage 2", [score_text(step.kl(STAGE_2)) for step in lines]),
        Column("kept", [step.checkpoint or "both" for step in lines], right=False),
        Column("published rows", [rows[step.published_group] for step in lines], right=False),
        Column("published last", [score_text(step.published_last) for step in lines]),
        Column("published best", [score_text(step.published_cv) for step in lines]),
    ]
    if not report.simulated:
        columns.append(Column("ours minus published", [_difference(step) for step in lines]))
    leaderboard = [
        "-" if step.published_lb is None else f"{step.published_lb:.2f}" for step in lines
    ]
    columns.append(Column("public score", leaderboard, optional=True))
    counted = f"Rows of the second stage here: {report.n_rows(STAGE_2):,}."
    simulated = (SIMULATED_NOTE,) if report.simulated else ()
    notes = (PUBLISHED_NOTE, LIKE_NOTE, *simulated, *_departures(report), STAGE_2_NOTE, counted)
    return Table("Our scores and published figures", tuple(columns), notes)


def _departures(report: LadderReport) -> list[str]:
    """Which values differ from the published ones; ladders without the fact are silent."""
    departures: dict[str, list[str]] = report.about.get("departures") or {}
    if not departures:
        return []
    paths = dict.fromkeys(path for found in departures.values() for path in found)
    if not paths:
        return ["All values of the published recipes are used as published."]
    texts = []
    for path in paths:
        steps = [name for name, found in departures.items() if path in found]
        everywhere = len(steps) == len(departures)
        texts.append(path if everywhere else f"{path} (in {', '.join(steps)})")
    return [f"Values that differ from the published recipes: {', '.join(texts)}."]


def _difference(step: StepLine) -> str:
    """Our KL minus the published one of the same checkpoint and rows."""
    group, published = step.published_group, step.published_like
    ours = None if group is None else step.kl(group)
    return "-" if ours is None or published is None else signed(ours - published)
