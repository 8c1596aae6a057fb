"""A study as data frames, for its report and for notebooks.

Each function takes a study by its name below ``results``, by its path, or as ``StudyData``, and
returns a frame with one row per line of what it shows; an empty frame if there is nothing to
show. ``figures`` draws them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd

from hms_ray.competition.schema import CLASSES
from hms_ray.ensemble.error_correlation import residual_correlation
from hms_ray.evaluate import confusion as confusions
from hms_ray.evaluate import discrimination as areas
from hms_ray.evaluate import reliability as reliabilities
from hms_ray.evaluate.metric import OBJECTIVES, Array, kl_by_class, mean_by_tier, row_sums
from hms_ray.report.study_data import StudyData
from hms_ray.storage.run_log import LOG_FILE, WORKER_LOGS
from hms_ray.study.cost import read_costs
from hms_ray.study.folder import StudyFolder
from hms_ray.study.trial import StoredTrial

Study: TypeAlias = StudyData | StudyFolder | str | Path
RESULTS: Final = "results"
BLEND: Final = "blend, nested"
"""Name of the blend among models."""
DISCRIMINATION_ROWS: Final = "kl_10"
"""Rows of at least 10 votes: shares of few votes are too noisy to order rows by."""
_SECONDS: Final = (
    *("seconds", "start_up_s", "training_s", "evaluated_s"),
    *("saved_by_store_s", "saved_by_stages_s", "saved_by_pruning_s"),
)
EVALUATION: Final = (*("epoch", "stage", *OBJECTIVES, "train_loss", "learning_rate", "seconds"),)
_LOGGED: Final = re.compile(r"^(\S+Z) ([A-Z]+) \S+: (.*)$")
_FAULT_LEVELS: Final = frozenset({"WARNING", "ERROR", "CRITICAL"})
_RESTART: Final = re.compile(r"was lost\b|\bresumed at stage\b")
"""Of lines that are no warning, because the run continued by itself."""
_NUMBERS: Final = re.compile(r"\d+")


def trials(study: Study, results: str | Path = RESULTS) -> pd.DataFrame:
    """All trials, best first.

    Returns:
        The columns of ``display.leaderboard.leaderboard``, and ``low`` and ``high``: ends of the
        95% interval of the objective, clustered by patient; NaN without predictions.
    """
    data = StudyData.of(study, results)
    frame, intervals = data.leaderboard(), data.intervals()
    found = [intervals.get(int(trial)) for trial in frame["trial"]]
    place = frame.columns.get_loc(data.objective)
    assert isinstance(place, int)
    for name in ("high", "low"):
        values = [np.nan if one is None else float(getattr(one, name)) for one in found]
        frame.insert(place + 1, name, values)
    return frame


def progress(study: Study, results: str | Path = RESULTS) -> pd.DataFrame:
    """The search trial by trial, by number.

    Returns:
        ``trial``, ``state``, ``score`` (of the objective; NaN if incomplete), ``estimate`` (of a
        pruned trial), ``best`` (lowest score so far) and ``hours`` of training so far, without
        stages that the fold store saved.
    """
    data = StudyData.of(study, results)
    rows = [
        {
            "trial": trial.number,
            "state": trial.state,
            "score": trial.scores.get(data.objective) if trial.finished else None,
            "estimate": trial.estimate,
            "hours": (trial.fold_minutes - trial.saved_minutes) / 60,
        }
        for trial in data.trials
    ]
    frame = pd.DataFrame(rows, columns=["trial", "state", "score", "estimate", "hours"])
    frame[["score", "estimate"]] = frame[["score", "estimate"]].astype("float64")
    frame["hours"] = frame["hours"].cumsum()
    frame["best"] = frame["score"].cummin().ffill()
    return frame


def curves(
    study: Study, results: str | Path = RESULTS, trials: Sequence[int] | None = None
) -> pd.DataFrame:
    """The evaluations of each fold, from the fold store.

    Args:
        study: see above.
        results: folder of all studies.
        trials: their numbers; default: all with stored folds.

    Returns:
        ``trial``, ``fold``, ``stage``, ``epoch`` (counted over all stages), ``kl_all``, ``kl_4``,
        ``kl_10``, ``train_loss``, ``learning_rate`` and ``seconds`` since the fold's start.
    """
    data = StudyData.of(study, results)
    rows = []
    for trial in data.trials:
        if trials is not None and trial.number not in trials:
            continue
        for fold, record in data.records(trial).items():
            with data.noted(f"The history of trial {trial.number:04d}, fold {fold}"):
                rows += evaluations(record["history"], trial=trial.number, fold=fold)
    data.note_lost_records()
    return pd.DataFrame(rows, columns=["trial", "fold", *EVALUATION])


def evaluations(history: Sequence[Mapping[str, Any]], **marks: Any) -> list[dict[str, Any]]:
    """The records of a fold, with epochs counted over all stages."""
    rows = []
    before, stage, last = 0.0, None, 0.0
    for line in history:
        if line.get("stage_index") != stage:
            before, stage = before + last, line.get("stage_index")
        last = float(line["epoch"])
        values = {name: line.get(name) for name in EVALUATION}
        rows.append({**marks, **values, "epoch": before + last})
    return rows


def models(
    study: Study, results: str | Path = RESULTS, n_best: int = 3
) -> dict[str, tuple[StoredTrial | None, Array]]:
    """Predictions (n, 6) of the best trials, and of the study's blend if it has one.

    Returns:
        Name of a model, such as ``trial 0003`` -> its trial (None for the blend) and predictions.
    """
    data = StudyData.of(study, results)
    found: dict[str, tuple[StoredTrial | None, Array]] = {}
    for trial in data.finished[:n_best]:
        predicted = data.predictions(trial)
        if predicted is not None:
            mark = " (optimistic)" if trial.optimistic else ""
            found[f"trial {trial.number:04d}{mark}"] = trial, predicted
    blended = data.blend_predictions()
    if blended is not None and data.blend is not None:
        found[BLEND + (" (optimistic)" if data.blend.get("optimistic") else "")] = None, blended
    return found


def kl_parts(study: Study, results: str | Path = RESULTS, n_best: int = 3) -> pd.DataFrame:
    """KL of the best trials and the blend, by class and by vote tier.

    Returns:
        ``model``, ``by`` (``class`` or ``tier``), ``part`` and ``kl``: of a class its part of the
        KL on the rows of the objective, which sum to it; of a tier the mean on its rows.
    """
    data = StudyData.of(study, results)
    rows: list[dict[str, Any]] = []
    for name, (_, predicted) in models(data, results, n_best).items():
        assert data.rows is not None
        counted = data.counted_rows()
        parts = kl_by_class(data.targets[counted], predicted[counted])
        scores = row_sums(data.targets, predicted)
        tiers = mean_by_tier(scores, data.rows["total_votes"].to_numpy())
        for by, values in (("class", parts), ("tier", tiers)):
            rows += [
                {"model": name, "by": by, "part": part, "kl": kl} for part, kl in values.items()
            ]
    return pd.DataFrame(rows, columns=["model", "by", "part", "kl"])


def confusion(
    study: Study, results: str | Path = RESULTS, trial: int | None = None
) -> pd.DataFrame:
    """Confusion of vote shares on the rows of the objective; default: of the best trial.

    Returns:
        ``true``, ``predicted``, ``share`` (mean predicted share, weighted by the true one),
        ``ideal`` (the same for predictions equal to the votes) and ``rows`` (summed true share).
        See ``evaluate.confusion``.
    """
    names = ["true", "predicted", "share", "ideal", "rows"]
    found = _predicted(study, results, trial)
    if found is None:
        return pd.DataFrame(columns=names)
    made = confusions.share_confusion(*found[1])
    rows = [
        (true, predicted, made.shares[i, j], made.ideal[i, j], made.weights[i])
        for i, true in enumerate(CLASSES)
        for j, predicted in enumerate(CLASSES)
    ]
    return pd.DataFrame(rows, columns=names)


def reliability(
    study: Study, results: str | Path = RESULTS, trial: int | None = None
) -> pd.DataFrame:
    """Reliability by class on the rows of the objective; default: of the best trial.

    Returns:
        One row per bin: ``name`` of the class, ``low``, ``high``, ``rows``, ``predicted``,
        ``true``, and ``ece`` of the class. See ``evaluate.reliability``.
    """
    names = ["name", "low", "high", "rows", "predicted", "true", "ece"]
    found = _predicted(study, results, trial)
    if found is None:
        return pd.DataFrame(columns=names)
    made = reliabilities.reliability(*found[1])
    rows = [
        (
            *(name, made.edges[bin_], made.edges[bin_ + 1], made.counts[k, bin_]),
            *(made.predicted[k, bin_], made.true[k, bin_], made.ece[k]),
        )
        for k, name in enumerate(CLASSES)
        for bin_ in range(len(made.edges) - 1)
    ]
    return pd.DataFrame(rows, columns=names)


def discrimination(
    study: Study, results: str | Path = RESULTS, trial: int | None = None
) -> pd.DataFrame:
    """AUROC and AUPRC by class on rows of at least 10 votes; default: of the best trial.

    Returns:
        ``name`` of the class, ``auroc``, ``auroc_low``, ``auroc_high``, ``auprc``,
        ``auprc_low``, ``auprc_high``, ``share`` (AUPRC of a constant), ``rows``, ``patients``.
        See ``evaluate.discrimination``.
    """
    names = ["name", *(f"{area}{end}" for area in ("auroc", "auprc") for end in _ENDS)]
    names += ["share", "rows", "patients"]
    found = _predicted(study, results, trial, DISCRIMINATION_ROWS)
    if found is None:
        return pd.DataFrame(columns=names)
    data, arrays, counted = found
    assert data.rows is not None
    owners = data.rows["patient_id"].to_numpy()[counted]
    rows = [
        (
            *(one.name, one.auroc.value, one.auroc.low, one.auroc.high),
            *(one.auprc.value, one.auprc.low, one.auprc.high),
            *(one.share, one.n_rows, one.n_patients),
        )
        for one in areas.discrimination(*arrays, owners).values()
    ]
    return pd.DataFrame(rows, columns=names)


_ENDS: Final = ("", "_low", "_high")


def _predicted(
    study: Study, results: str | Path, trial: int | None, objective: str | None = None
) -> tuple[StudyData, tuple[Array, Array], Any] | None:
    """Targets and predictions of a trial on the rows of a score, and the mask of these rows."""
    data = StudyData.of(study, results)
    chosen = data.trial(trial)
    predicted = None if chosen is None else data.predictions(chosen)
    if predicted is None:
        return None
    counted = data.counted_rows(objective)
    if not counted.any():
        return None
    return data, (data.targets[counted], predicted[counted]), counted


def error_correlation(
    study: Study, results: str | Path = RESULTS, n_best: int = 10
) -> pd.DataFrame:
    """Correlation of the errors of the best trials on the rows of the objective.

    Returns:
        Square, with the trials as index and columns. See ``ensemble.error_correlation``.
    """
    data = StudyData.of(study, results)
    found = models(data, results, n_best)
    found = {name: one for name, one in found.items() if one[0] is not None}
    if len(found) < 2:
        return pd.DataFrame()
    counted = data.counted_rows()
    predicted = np.stack([one[counted] for _, one in found.values()])
    names = [name.removeprefix("trial ") for name in found]
    made = residual_correlation(data.targets[counted], predicted)
    return pd.DataFrame(made, index=names, columns=names)


def blend_weights(study: Study, results: str | Path = RESULTS) -> pd.DataFrame:
    """Weights of the study's blend, largest first; empty if its method has none.

    Returns:
        ``model``, ``weight`` (fitted on all patients), ``nested_low`` and ``nested_high``
        (smallest and largest weight of the fits on other patients; NaN if unknown).
    """
    data = StudyData.of(study, results)
    names = ["model", "weight", "nested_low", "nested_high"]
    if data.blend is None or not data.blend.get("weights"):
        return pd.DataFrame(columns=names)
    nested = data.blend.get("nested_weights") or {}
    none = (np.nan, np.nan)
    rows = [
        (name, weight, *nested.get(name, none)) for name, weight in data.blend["weights"].items()
    ]
    frame = pd.DataFrame(rows, columns=names)
    return frame.sort_values("weight", ascending=False, kind="stable", ignore_index=True)


def cost(study: Study, results: str | Path = RESULTS) -> pd.DataFrame:
    """Cost of each run of the study.

    Returns:
        ``started``, ``work``, ``slots``, ``devices``, ``n_folds``, ``images``, ``useful_share``,
        ``device_hours`` of training, and the times of ``RunCost`` in seconds.
    """
    data = StudyData.of(study, results)
    with data.noted("The cost of the runs"):
        rows = [
            {
                "started": one.started,
                "work": one.work,
                "slots": one.slots,
                "devices": one.devices,
                "n_folds": one.n_folds,
                "images": one.images,
                "useful_share": one.useful_share,
                "device_hours": one.training_s * one.devices / 3600,
                **{name: getattr(one, name) for name in _SECONDS},
            }
            for one in read_costs(data.folder.path)
        ]
        return pd.DataFrame(rows)
    return pd.DataFrame()


def faults(study: Study, results: str | Path = RESULTS) -> pd.DataFrame:
    """Trials that did not finish; lost worker groups, restarts, warnings and errors of the logs.

    Returns:
        ``what`` (such as ``failed``, ``restart`` or ``warning``), ``times``, ``text`` (of the
        latest, where lines of a log differ in numbers alone), and ``where``: the trials, or the
        time of the latest.
    """
    data = StudyData.of(study, results)
    reasons: dict[tuple[str, str], list[str]] = {}
    for trial in data.trials:
        if trial.reason is not None and trial.state != "pruned":
            reasons.setdefault((trial.state, trial.reason), []).append(f"{trial.number:04d}")
    rows = [
        (state, len(numbers), reason, f"trials {', '.join(numbers)}")
        for (state, reason), numbers in reasons.items()
    ]
    counts: Counter[tuple[str, str]] = Counter()
    last: dict[tuple[str, str], tuple[str, str]] = {}
    path = data.folder.path
    for log in (path / LOG_FILE, *sorted((path / WORKER_LOGS).glob("*.txt"))):
        with data.noted(f"The log {log.name}"):
            for what, when, text in _log_faults(log):
                kind = what, _NUMBERS.sub("#", text)
                counts[kind] += 1
                last[kind] = max(last.get(kind, ("", "")), (when, text))
    for kind, times in counts.most_common():
        when, text = last[kind]
        rows.append((kind[0], times, text, f"last at {when}"))
    return pd.DataFrame(rows, columns=["what", "times", "text", "where"])


def _log_faults(log: Path) -> Iterator[tuple[str, str, str]]:
    """Kind, time and text of each fault in a log; none if there is no such file."""
    if not log.is_file():
        return
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if found := _LOGGED.match(line.rstrip("\n")):
                when, level, text = found.groups()
                if level in _FAULT_LEVELS:
                    yield level.lower(), when, text
                elif _RESTART.search(text):
                    yield "restart", when, text
