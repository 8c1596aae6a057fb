"""The report of a study: its sections, in the order in which people ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pandas as pd

from hms_ray.errors import one_line
from hms_ray.report import (
    study_facts,
    study_predictions,
    study_scores,
    study_search,
)
from hms_ray.report.page import Page, Section
from hms_ray.report.study_data import StudyData
from hms_ray.report.study_view import StudyView
from hms_ray.study.run_outcome import FINISHED, read_outcome
from hms_ray.text import counted

_SECTIONS: Final[tuple[tuple[str, Callable[[StudyView], list[str]]], ...]] = (
    ("Scores", study_scores.scores),
    ("Leaderboard", study_scores.leaderboard),
    ("Progress of the search", study_search.progress),
    ("What the search found", study_search.search),
    ("Curves", study_search.curves),
    ("KL by class and by votes", study_predictions.parts),
    ("Confusion of vote shares", study_predictions.confusion),
    ("Reliability", study_predictions.reliability),
    ("AUROC and AUPRC", study_predictions.discrimination),
    ("Correlation of errors", study_predictions.correlation),
    ("Blend", study_facts.blend),
    ("Cost", study_facts.cost),
    ("Faults", study_facts.faults),
    ("Reproduce a trial", study_facts.reproduce),
)
"""Title -> makes the parts of a section; one without parts is omitted."""


def study_page(data: StudyData) -> Page:
    """The report of a study.

    A section that cannot be made is omitted and listed as missing; nothing raises.
    """
    view = StudyView(data, Page(f"Study {data.folder.name}"))
    data.check_files()
    for title, make in _SECTIONS:
        try:
            parts = make(view)
        # A report with one section less is better than none.
        except Exception as error:
            data.note(f"The section {title}: {one_line(error)}")
            continue
        if parts := [part for part in parts if part]:
            view.page.sections.append(Section(title, parts))
    view.page.lead, view.page.missing = _lead(view), data.missing
    return view.page


def _lead(view: StudyView) -> list[str]:
    data = view.data
    states = pd.Series([trial.state for trial in data.trials]).value_counts().to_dict()
    ended = ", ".join(f"{number:,} {state}" for state, number in states.items())
    parts = [counted(len(data.trials), "trial") + (f" ({ended})" if len(states) > 1 else "")]
    if data.rows is not None:
        rows = data.rows
        parts.append(f"{counted(len(rows), 'row')} of {_patients(rows)}")
        parts.append(counted(rows["fold"].nunique(), "fold"))
    lead = [f"{', '.join(parts)}. Trials are ordered by {view.score}: smaller is better."]
    if data.simulated:
        lead.append("The data are simulated: scores say nothing about real recordings.")
    elif data.data_folder is not None and data.simulated is None:
        lead.append(f"Data: {data.data_folder}.")
    if view.data.running:
        lead.append("The study is running: this is what there was when the page was written.")
    outcome = read_outcome(view.folder.path)
    if outcome is not None and outcome.text != FINISHED:
        lead.append(f"The last run ended at {outcome.ended} (UTC): {outcome.text}.")
    return lead


def _patients(rows: pd.DataFrame) -> str:
    return counted(rows["patient_id"].nunique(), "patient")
