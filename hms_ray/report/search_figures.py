"""Importance and slices of a search, by ``optuna.visualization``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final

import optuna
from optuna.trial import FrozenTrial

from hms_ray.display.leaderboard import short_names
from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.report.figure_style import COLOURS, QUIET, dressed, label, require_plotly
from hms_ray.report.study_data import StudyData
from hms_ray.search.distributions import distributions

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_PANEL_WIDTH: Final = 200
_DECADES: Final = 30
"""Range of an axis within which two powers of ten may not be seen."""
MIN_TRIALS: Final = 3
"""Fewer finished trials show nothing about a parameter."""


def optuna_study(data: StudyData) -> optuna.Study | None:
    """The finished trials as a study in memory, so that the journal stays as it is.

    None if fewer than ``MIN_TRIALS`` finished or nothing was searched.
    """
    space = data.folder.space()
    known = distributions(space)
    names = dict(zip(known, short_names(list(known)), strict=True))
    made: list[FrozenTrial] = []
    for trial in data.trials:
        score = trial.scores.get(data.objective) if trial.finished else None
        if score is None or not set(trial.point) <= set(known):
            continue
        made.append(
            optuna.trial.create_trial(
                params={names[path]: value for path, value in trial.point.items()},
                distributions={names[path]: known[path] for path in trial.point},
                value=score,
            )
        )
    if len(made) < MIN_TRIALS or not known:
        return None
    verbosity = optuna.logging.get_verbosity()
    # Otherwise it prints a line about each study that it makes.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="minimize")
    finally:
        optuna.logging.set_verbosity(verbosity)
    study.add_trials(made)
    return study


def importance(study: optuna.Study) -> Figure:
    """Importance of each parameter for the score (fANOVA), with its value."""
    figure = _drawn("plot_param_importances", study)
    figure.update_traces(marker={"color": COLOURS[0]})
    n_bars = max((len(trace.y or ()) for trace in figure.data), default=1)
    figure.update_layout(height=130 + 34 * n_bars, showlegend=False, margin={"l": 150})
    figure.update_xaxes(title={"text": "importance for the score"})
    figure.update_yaxes(title=None)
    return figure


def slices(study: optuna.Study, objective: str) -> Figure:
    """The score of each trial over each parameter."""
    figure = _drawn("plot_slice", study)
    figure.update_traces(
        marker={
            "color": COLOURS[0],
            "colorscale": None,
            "showscale": False,
            "size": 7,
            "opacity": 0.9,
            "line": {"width": 0.5, "color": QUIET},
        }
    )
    for trace in figure.data:
        axis = figure.layout[f"xaxis{(trace.xaxis or 'x')[1:]}"]
        if axis.type == "category":
            trace.x = [_plain(value) for value in trace.x]
            axis.categoryarray = [_plain(value) for value in axis.categoryarray]
            axis.tickangle = -30
        elif axis.type == "log":
            # Labels at powers of ten, or also at 2 and 5: more do not fit.
            wide = max(trace.x, default=1) > _DECADES * min(trace.x, default=1)
            axis.dtick = 1 if wide else "D2"
    n_panels = sum(name.startswith("xaxis") for name in figure.to_plotly_json()["layout"])
    figure.update_layout(showlegend=False, width=_PANEL_WIDTH * n_panels)
    figure.layout.yaxis.title.text = SCORE_NAMES[objective]
    return figure


def _plain(value: object) -> str:
    """A label of Optuna without its quotation marks."""
    text = str(value)
    return label(text[1:-1] if text[:1] == text[-1:] == "'" else text)


def _drawn(name: str, *arguments: Any) -> Figure:
    require_plotly()
    with warnings.catch_warnings():
        # Of parameters with one value, and of its own experimental parts.
        warnings.simplefilter("ignore")
        from optuna import visualization

        figure: Figure = getattr(visualization, name)(*arguments)
    figure.update_layout(title=None)
    return dressed(figure)
