"""The predictions of a study as data frames; see ``frames``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from hms_ray.competition.schema import CLASSES
from hms_ray.ensemble.error_correlation import residual_correlation
from hms_ray.evaluate import confusion as confusions
from hms_ray.evaluate import discrimination as areas
from hms_ray.evaluate import reliability as reliabilities
from hms_ray.evaluate.metric import Array, kl_by_class, mean_by_tier, row_sums
from hms_ray.report.study_data import StudyData
from hms_ray.report.trial_frames import RESULTS, Study
from hms_ray.study.trial import StoredTrial

BLEND: Final = "blend, nested"
"""Name of the blend among models."""
DISCRIMINATION_ROWS: Final = "kl_10"
"""Rows of at least 10 votes: shares of few votes are too noisy to order rows by."""
_ENDS: Final = ("", "_low", "_high")


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
