"""What ``hms-ray show`` prints: plain data, and its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hms_ray.display.cells import OPTIMISTIC_LEGEND, RECALIBRATED, RECALIBRATED_LEGEND, score_text
from hms_ray.display.folder_list import FolderSummary, best_text, number_text, time_text
from hms_ray.display.holdout_table import openings_text
from hms_ray.display.leaderboard import pruned_text
from hms_ray.display.run_cost import RunCost, cost_table
from hms_ray.display.tables import Column, Table, to_text
from hms_ray.display.trial_choice import TrialChoice, choice_text
from hms_ray.evaluate.metric import OBJECTIVES, SCORE_NAMES, named_scores
from hms_ray.text import counted


@dataclass(frozen=True)
class StudyOverview:
    """One study.

    Attributes:
        planned: number of finished trials that the study ends with.
        rows, patients, folds: numbers of its data.
        unit: row unit.
        searched: dotted path -> the values searched, as text.
        best_values: dotted path -> value of the best trial.
        choice: nested KL of the choice of the best trial, and its optimism.
        minutes: training time of all finished trials.
        runs: when each run of the study started, ISO 8601, oldest first.
        command: command line of the last run; None if unknown.
        hosts: machines of the last run.
        held_out_rows, held_out_patients: set aside; 0 without a hold-out.
        openings: of the hold-out, oldest first, see ``study.holdout.openings``.
        closed: by what the hold-out was closed, see ``study.refit``; None if it was not.
        costs: of the runs, oldest first.
        saved_by_pruning: pruned trials, folds that they did not train, about their minutes.
    """

    summary: FolderSummary
    planned: int | None
    rows: int
    patients: int
    folds: int
    unit: str | None
    searched: Mapping[str, str]
    best_values: Mapping[str, Any]
    choice: TrialChoice
    minutes: float
    runs: Sequence[str]
    command: str | None
    hosts: Sequence[str]
    held_out_rows: int = 0
    held_out_patients: int = 0
    openings: Sequence[Mapping[str, Any]] = ()
    closed: str | None = None
    costs: Sequence[RunCost] = ()
    saved_by_pruning: tuple[int, int, float] = (0, 0, 0.0)


@dataclass(frozen=True)
class FoldOverview:
    """One fold of a trial.

    Attributes:
        scores: ``kl_all``, ``kl_4``, ``kl_10`` on the fold's rows; None without such rows.
        minutes: training time; None if the fold store does not have the fold.
        checkpoint: stage and epoch of the evaluation whose weights are kept; None likewise.
        reused: whether it was in the fold store before the trial ran.
    """

    fold: int
    scores: Mapping[str, float | None]
    minutes: float | None
    checkpoint: str | None
    reused: bool
    cache_key: str


@dataclass(frozen=True)
class TrialOverview:
    """One trial.

    Attributes:
        state: see ``StoredTrial``.
        rank: 1 is the best finished trial; None if it is not complete.
        objective: score that orders the trials.
        scores: ``kl_all``, ``kl_4``, ``kl_10``; empty if it is not complete.
        recalibrated: the same after nested recalibration; empty if unknown.
        optimistic: whether checkpoints were chosen on the scored rows.
        values: dotted path -> value, as searched.
        differences: dotted path -> value of the best trial and of this one, where they differ.
        folds: of a finished or pruned trial.
        minutes: training time of all folds.
        saved_minutes: part of it that stages reused from the fold store saved.
        reason: why it is not complete.
        error_file: file with the traceback.
        estimate: of a pruned trial, the objective that it would probably have reached.
        study_folds: of a pruned trial, folds of the study.
        saved_by_pruning_minutes: about the training time of the folds that it did not train.
        refit: its models on all rows, if there are any.
    """

    study: str
    number: int
    state: str
    rank: int | None
    objective: str
    scores: Mapping[str, float | None]
    optimistic: bool
    values: Mapping[str, Any]
    best_trial: int | None
    differences: Mapping[str, tuple[Any, Any]]
    folds: Sequence[FoldOverview]
    minutes: float
    saved_minutes: float
    reason: str | None
    error_file: str | None
    path: str
    estimate: float | None = None
    study_folds: int | None = None
    saved_by_pruning_minutes: float = 0.0
    recalibrated: Mapping[str, float | None] = field(default_factory=dict)
    refit: str | None = None


def render_study(study: StudyOverview) -> str:
    """A study's facts, its best trial and what was searched."""
    summary = study.summary
    facts = {
        "study": summary.name,
        "folder": summary.path,
        "objective": SCORE_NAMES.get(summary.objective or "", summary.objective),
        "data": f"{counted(study.rows, 'row')} ({study.unit}) of "
        f"{counted(study.patients, 'patient')}, {counted(study.folds, 'fold')}",
        "hold-out": _hold_out(study),
        "trials": summary.trials_text
        + ("" if study.planned is None else f"; {study.planned:,} planned"),
        "pruning": pruned_text(*study.saved_by_pruning) or None,
        "training": f"{study.minutes:.1f} minutes of finished trials",
        "last written": f"{time_text(summary.written)} UTC",
        "runs": ", ".join(f"{time_text(run)} UTC" for run in study.runs) or None,
        "last run": summary.outcome,
        "machines": ", ".join(study.hosts) or None,
    }
    best = f"Best trial: {number_text(summary.best_trial)}, {best_text(summary)}"
    best += f", {RECALIBRATED} {score_text(summary.best_recalibrated)}."
    if summary.best_recalibrated is not None:
        best += f"\n{RECALIBRATED_LEGEND}"
    if summary.best_trial is None:
        best = "No trial has finished yet."
    best_values = [_value(study.best_values.get(path)) for path in study.searched]
    searched = Table(
        "Searched",
        (
            Column("value", list(study.searched), right=False),
            Column("searched", list(study.searched.values()), right=False),
            Column("best trial", best_values, right=False),
        ),
    )
    about = searched if study.searched else "Nothing was searched."
    costs = cost_table(study.costs) if study.costs else ""
    text = to_text(_facts(facts), best, choice_text(study.choice), about, costs)
    # Not wrapped, so that it can be pasted.
    return text if study.command is None else f"{text}\n\nLast command\n{study.command}"


def render_trial(trial: TrialOverview) -> str:
    """A trial's scores or why it has none, its cost, folds, and differences to the best trial."""
    title = f"Trial {trial.number:04d} of {trial.study}: {trial.state}"
    if trial.reason is not None and not trial.folds:
        failure = {"reason": trial.reason, "traceback": trial.error_file, "folder": trial.path}
        return to_text(f"{title}.", _facts(failure), _differences(trial))
    saved = f", {trial.saved_minutes:.1f} of them saved" if trial.saved_minutes >= 0.05 else ""
    reused = [str(fold.fold) for fold in trial.folds if fold.reused]
    objective = SCORE_NAMES[trial.objective]
    facts = {
        "rank": None if trial.rank is None else f"{trial.rank} by {objective}",
        "reason": trial.reason,
        "estimate": _estimate(trial),
        "scores": named_scores(trial.scores) or None,
        RECALIBRATED: (named_scores(trial.recalibrated) or "-") if trial.scores else None,
        "cost": f"{trial.minutes:.1f} minutes of training{saved}",
        "pruning": _not_trained(trial),
        "reused": f"fold {', '.join(reused)} from the fold store" if reused else None,
        "refit": trial.refit,
        "folder": trial.path,
    }
    notes = [RECALIBRATED_LEGEND] if named_scores(trial.recalibrated) else []
    if trial.optimistic:
        notes.append(OPTIMISTIC_LEGEND.removeprefix("* "))
    return to_text(f"{title}.", _facts(facts), "\n".join(notes), _folds(trial), _differences(trial))


def _estimate(trial: TrialOverview) -> str | None:
    if trial.estimate is None:
        return None
    return f"{named_scores({trial.objective: trial.estimate})} probably, with all folds"


def _not_trained(trial: TrialOverview) -> str | None:
    if trial.study_folds is None:
        return None
    folds = counted(trial.study_folds - len(trial.folds), "fold")
    return f"{folds} not trained, about {trial.saved_by_pruning_minutes:.1f} minutes saved"


def _hold_out(study: StudyOverview) -> str | None:
    if not study.held_out_rows:
        return None
    return (
        f"{counted(study.held_out_rows, 'row')} of "
        f"{counted(study.held_out_patients, 'patient')}, {openings_text(study.openings)}"
        + ("" if study.closed is None else f"; closed by {study.closed}")
    )


def _facts(facts: Mapping[str, str | None]) -> str:
    width = max(map(len, facts))
    return "\n".join(f"{name:{width}}  {text}" for name, text in facts.items() if text is not None)


def _folds(trial: TrialOverview) -> str | Table:
    if not trial.folds:
        return ""
    scores = [
        Column(SCORE_NAMES[name], [score_text(fold.scores.get(name)) for fold in trial.folds])
        for name in OBJECTIVES
    ]
    minutes = ["-" if fold.minutes is None else f"{fold.minutes:.1f}" for fold in trial.folds]
    columns = (
        Column("fold", [str(fold.fold) for fold in trial.folds]),
        *scores,
        Column("minutes", minutes),
        Column("checkpoint", [fold.checkpoint or "-" for fold in trial.folds], right=False),
        Column("reused", ["yes" if fold.reused else "no" for fold in trial.folds], right=False),
        Column("cache key", [fold.cache_key[:12] for fold in trial.folds], right=False),
    )
    return Table("Folds", columns)


def _differences(trial: TrialOverview) -> str | Table:
    if trial.best_trial is None:
        return ""
    best = f"trial {trial.best_trial:04d}"
    if trial.best_trial == trial.number:
        return "It is the best trial."
    if not trial.differences:
        return f"Its configuration is that of the best one, {best}."
    values = trial.differences.values()
    columns = (
        Column("value", list(trial.differences), right=False),
        Column(best, [_value(one) for one, _ in values], right=False),
        Column(f"trial {trial.number:04d}", [_value(own) for _, own in values], right=False),
    )
    return Table("Differences to the best trial", columns)


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else str(value)
