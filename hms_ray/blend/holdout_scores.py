"""Scores of held-out rows: by a trial, by a blend, and after recalibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from hms_ray.blend.result_files import NESTED_FILE
from hms_ray.blend.stored import StoredBlend
from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.display.holdout_table import HoldoutScores, Intervals
from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import Interval, intervals_by_objective
from hms_ray.evaluate.metric import OBJECTIVES, Array, kl_rows
from hms_ray.evaluate.oof import align_oof, probabilities_of, read_oof
from hms_ray.predict.trial import TrialModels, mean_of_folds
from hms_ray.study.folder import StudyFolder
from hms_ray.study.trial import StoredTrial

ByFold = Mapping[int, Array]
"""Fold -> probabilities (n, 6) by its model."""
Predicted = tuple[pd.DataFrame, Array]
"""Rows with targets, votes and patients; and their probabilities (n, 6)."""


def trial_scores(
    folder: StudyFolder, trial: StoredTrial, by_fold: ByFold, scored: pd.DataFrame
) -> HoldoutScores:
    """Scores of a trial.

    Args:
        folder: its study.
        trial: finished.
        by_fold: predictions of the held-out rows.
        scored: these rows.
    """
    rows, mean = folder.rows(), mean_of_folds(by_fold)
    known = rows, probabilities_of(trial.oof(rows))
    return HoldoutScores(
        name=f"Best trial, {trial.number:04d}",
        single=_single(list(by_fold.values()), scored),
        averaged=_intervals(_kl(scored, mean), scored),
        out_of_fold=_intervals(_kl(*known), rows),
        recalibrated=_recalibrated(known, scored, mean),
        optimistic=trial.optimistic,
    )


_NESTED_NOTE = (
    "Its out-of-fold score is nested, for the first partition of the patients; hms-ray blend "
    "prints the mean of several."
)


def blend_scores(
    folder: StudyFolder,
    blend: StoredBlend,
    members: Mapping[str, TrialModels],
    parts: Mapping[str, ByFold],
    scored: pd.DataFrame,
) -> HoldoutScores:
    """Scores of the blend of the members' means and, if they share folds, of each fold's blend."""
    single, notes = None, []
    if _share_folds(list(members.values())):
        folds = next(iter(parts.values()))
        blended = [blend.predict({name: one[k] for name, one in parts.items()}) for k in folds]
        single = _single(blended, scored)
    else:
        notes.append("Single fold models cannot be blended: the members have different folds.")
    nested = _nested(folder)
    mean = blend.predict({name: mean_of_folds(one) for name, one in parts.items()})
    absent = f"No out-of-fold score: {NESTED_FILE} does not fit the rows of the study."
    notes.append(absent if nested is None else _NESTED_NOTE)
    return HoldoutScores(
        name=f"Blend, {blend.method}",
        single=single,
        averaged=_intervals(_kl(scored, mean), scored),
        out_of_fold=None if nested is None else _intervals(_kl(*nested), nested[0]),
        recalibrated={} if nested is None else _recalibrated(nested, scored, mean),
        optimistic=blend.optimistic,
        notes=notes,
    )


def _nested(folder: StudyFolder) -> Predicted | None:
    """Nested predictions of the blend; None if its rows are not those of the study."""
    rows, file = folder.rows(), folder.path / "blend" / NESTED_FILE
    try:
        oof = read_oof(file)
        rows = rows[rows["row_id"].isin(oof["row_id"])].reset_index(drop=True)
        return rows, probabilities_of(align_oof(oof, rows, file))
    except PredictionError:
        return None


def _recalibrated(known: Predicted, scored: pd.DataFrame, probabilities: Array) -> Intervals:
    """Scores of held-out rows after a recalibration that is fitted on out-of-fold predictions.

    As in ``recalibrated_scores``, the rows of each score have their own.
    """
    # Fits take a third of the time that a short command needs to start.
    from hms_ray.evaluate.calibration import fit_recalibration

    rows, predicted = known
    targets, votes = rows[list(TARGET_COLUMNS)].to_numpy(np.float64), rows["total_votes"]
    scores: dict[str, Interval | None] = {}
    for name, fewest in OBJECTIVES.items():
        scores[name], chosen = None, (votes >= fewest).to_numpy()
        if chosen.any():
            fitted = fit_recalibration(targets[chosen], predicted[chosen])
            kl = _kl(scored, fitted.apply(probabilities))
            scores[name] = _intervals(kl, scored)[name]
    return scores


def _single(predictions: Sequence[Array], scored: pd.DataFrame) -> Intervals:
    """Mean over models of the KL of each row."""
    return _intervals(np.mean([_kl(scored, one) for one in predictions], axis=0), scored)


def _kl(rows: pd.DataFrame, probabilities: Array) -> Array:
    return kl_rows(rows[list(TARGET_COLUMNS)].to_numpy(np.float64), probabilities)


def _intervals(scores: Array, rows: pd.DataFrame) -> Intervals:
    return intervals_by_objective(scores, rows["total_votes"], rows["patient_id"])


def _share_folds(models: Sequence[TrialModels]) -> bool:
    """Whether fold k of one is trained on the same rows as fold k of every other."""
    described = [
        {fold: stored.record["made_from"]["folds"] for fold, stored in one.folds.items()}
        for one in models
    ]
    return all(other == described[0] for other in described)
