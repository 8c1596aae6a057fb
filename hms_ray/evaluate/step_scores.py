"""Scores of a ladder's steps, and their differences to their baselines.

All steps are scored on the same rows, all intervals are clustered by patient, and
every comparison is made twice: as predicted, and after recalibrating both sides with a
fit on other patients' rows of the same group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hms_ray.errors import PredictionError
from hms_ray.evaluate.calibration import nested_recalibration
from hms_ray.evaluate.intervals import (
    Difference,
    Interval,
    clustered_interval,
    paired_difference,
    patient_bootstrap,
    t_quantile,
)
from hms_ray.evaluate.metric import OBJECTIVES, Array, kl_rows, row_sums
from hms_ray.evaluate.seed_variance import SeedMeans, seed_variance

POWER: Final = 0.8
"""Probability of finding a difference of the smallest detectable size."""

RESOLUTION: Final = 0.00005
"""Nats; a smaller difference prints as 0 and is a tie. Without it, predictions that differ
in temperature alone would differ after recalibration, where the fits leave less than 1e-7."""

STAGE_2: Final = "kl_stage_2"
STAGE_2_VOTES: Final = 5
STAGE_2_UNANIMOUS_VOTES: Final = 4
"""The published second stage uses rows with 5 or more votes, and unanimous rows with 4
(notebooks of the published series)."""

GROUPS: Final = (*OBJECTIVES, STAGE_2)
"""Groups of scored rows, by the name of their mean KL."""


@dataclass(frozen=True)
class GroupRows:
    """KL of one group's rows under each of S steps, nats.

    Attributes:
        raw: (S, n) float64, as predicted.
        recalibrated: (S, n) float64, every row corrected by a fit on other patients' rows
            of the group; None with one patient.
        patients: (n,) patient of each row.
        seeds: runs on each data set, if the scores are means over training seeds.
    """

    raw: Array
    recalibrated: Array | None
    patients: NDArray[Any]
    seeds: tuple[SeedMeans, ...] = ()


RowScores = Mapping[str, GroupRows]
"""Name of a group -> its rows; groups without rows are missing."""


@dataclass(frozen=True)
class StepDifference(Difference):
    """A step minus its baseline; below 0 it is better.

    Attributes:
        degrees: degrees of freedom of the t quantile; default: patients - 1.
        priced: whether the interval includes the variance of the training seeds.
    """

    degrees: float | None = None
    priced: bool = False

    @property
    def tie(self) -> bool:
        """Whether the interval contains 0, or the mean is below ``RESOLUTION``."""
        return super().tie or abs(self.mean) < RESOLUTION

    @property
    def same(self) -> bool:
        """Whether all rows score exactly the same, so that nothing was compared."""
        return self.low == self.high == 0

    @property
    def detectable(self) -> float:
        """The smallest difference that such rows show with a probability of 80%, nats.

        ``(t_{df, 0.975} + t_{df, 0.8}) SE`` with df degrees of freedom, SE from the
        interval's half width (the usual sample-size formula, solved for the difference);
        infinite if the interval is.
        """
        degrees = self.n_patients - 1 if self.degrees is None else self.degrees
        if self.n_patients < 2:
            return float(np.inf)
        of_interval = t_quantile(degrees)
        error = (self.high - self.low) / 2 / of_interval
        return (of_interval + t_quantile(degrees, POWER)) * error

    def to_json(self) -> dict[str, Any]:
        """Plain data; None for infinity."""
        return {
            **super().to_json(),
            "verdict": "same" if self.same else self.verdict,
            "detectable": _finite(self.detectable),
        }


@dataclass(frozen=True)
class GroupScore:
    """A step on one group of rows, nats.

    Attributes:
        kl: mean KL with its patient-clustered interval.
        bootstrap: the same with the interval of a bootstrap over patients.
        recalibrated: mean KL after nested recalibration; None with one patient.
        difference: to the baseline; None for a first step.
        recalibrated_difference: the same after nested recalibration of both.
    """

    kl: Interval
    bootstrap: Interval
    recalibrated: Interval | None
    difference: StepDifference | None
    recalibrated_difference: StepDifference | None


StepScores = Mapping[str, GroupScore]
"""Name of a group -> a step's score; groups without rows are missing."""


def row_groups(targets: Array, total_votes: ArrayLike) -> dict[str, NDArray[np.bool_]]:
    """The (n,) rows of each group, by its name.

    Args:
        targets: (n, 6) vote shares.
        total_votes: (n,) votes of each row.
    """
    votes = np.asarray(total_votes)
    groups = {name: votes >= fewest for name, fewest in OBJECTIVES.items()}
    unanimous = (votes >= STAGE_2_UNANIMOUS_VOTES) & (targets.max(axis=1) == 1)
    groups[STAGE_2] = (votes >= STAGE_2_VOTES) | unanimous
    return groups


def row_scores(
    targets: Array,
    total_votes: ArrayLike,
    patients: ArrayLike,
    predictions: Sequence[Array],
    seed: int = 0,
) -> dict[str, GroupRows]:
    """KL of every row under every step, as predicted and recalibrated.

    Each group is recalibrated on its own rows, since a calibration for rows with many
    votes does not suit all rows.

    Args:
        targets: (n, 6) vote shares.
        total_votes: (n,) votes of each row.
        patients: (n,) patient of each row.
        predictions: S times (n, 6), on the same rows.
        seed: of the splits by patient.

    Raises:
        PredictionError: if targets or predictions are no distributions, shapes differ,
            or there are no steps.
    """
    if not predictions:
        raise PredictionError("a ladder must have steps", got="none")
    owners = np.asarray(patients)
    raw = np.stack([kl_rows(targets, predicted) for predicted in predictions])
    scores: dict[str, GroupRows] = {}
    for name, chosen in row_groups(targets, total_votes).items():
        if not chosen.any():
            continue
        known, group = targets[chosen], owners[chosen]
        recalibrated = None
        if len(np.unique(group)) > 1:
            corrected = (
                nested_recalibration(known, predicted[chosen], group, seed=seed)
                for predicted in predictions
            )
            recalibrated = np.stack([row_sums(known, rows) for rows in corrected])
        scores[name] = GroupRows(raw[:, chosen], recalibrated, group)
    return scores


def combine_rows(parts: Sequence[Sequence[RowScores]]) -> dict[str, GroupRows]:
    """Rows of several ladders with the same steps, as one ladder.

    Ladders on the same rows differ in the seed of training: the scores of a row are averaged
    over them. Patients of different data sets count as different, whatever their ids. A
    group is recalibrated if it is in every ladder with rows of it.

    Args:
        parts: for each data set the scores of its ladders, from ``row_scores``, with the same
            rows in the same order; at least one.
    """
    pooled: dict[str, GroupRows] = {}
    for name in GROUPS:
        groups = [_over_seeds([part[name] for part in runs]) for runs in parts if name in runs[0]]
        if not groups:
            continue
        patients, n_known = [], 0
        for group in groups:
            known, number = np.unique(group.patients, return_inverse=True)
            patients.append(n_known + number)
            n_known += len(known)
        recalibrated = [rows for group in groups if (rows := group.recalibrated) is not None]
        pooled[name] = GroupRows(
            np.concatenate([group.raw for group in groups], axis=1),
            np.concatenate(recalibrated, axis=1) if len(recalibrated) == len(groups) else None,
            np.concatenate(patients),
            tuple(seeds for group in groups for seeds in group.seeds),
        )
    return pooled


def _over_seeds(runs: Sequence[GroupRows]) -> GroupRows:
    """Scores of rows averaged over runs on the same rows, with the means of each run."""
    raw = [run.raw for run in runs]
    corrected = [rows for run in runs if (rows := run.recalibrated) is not None]
    whole = len(corrected) == len(runs)
    means = SeedMeans(
        raw[0].shape[1],
        np.stack([rows.mean(axis=1) for rows in raw]),
        np.stack([rows.mean(axis=1) for rows in corrected]) if whole else None,
    )
    mean = np.mean(corrected, axis=0) if whole else None
    return GroupRows(np.mean(raw, axis=0), mean, runs[0].patients, (means,))


def score_steps(
    rows: RowScores, baselines: Sequence[int | None], seed: int = 0
) -> tuple[StepScores, ...]:
    """Scores of every step on every group.

    Args:
        rows: from ``row_scores`` or ``combine_rows``.
        baselines: (S) position of each step's baseline; None for a first step.
        seed: of the bootstrap.

    Raises:
        PredictionError: if there is not one baseline per step.
    """
    scores: list[dict[str, GroupScore]] = [{} for _ in baselines]
    for name, group in rows.items():
        if len(group.raw) != len(baselines):
            raise PredictionError(
                "there must be one baseline, or None, per step",
                got=f"{len(baselines)} for {len(group.raw)} steps",
            )
        bootstraps = patient_bootstrap(group.raw, group.patients, np.random.default_rng(seed))
        for number, step in enumerate(scores):
            step[name] = _group_score(group, number, baselines[number], bootstraps[number])
    return tuple(scores)


def _group_score(
    group: GroupRows, number: int, baseline: int | None, bootstrap: Interval
) -> GroupScore:
    corrected = group.recalibrated
    return GroupScore(
        kl=clustered_interval(group.raw[number], group.patients),
        bootstrap=bootstrap,
        recalibrated=None
        if corrected is None
        else clustered_interval(corrected[number], group.patients),
        difference=_difference(group, number, baseline),
        recalibrated_difference=None
        if corrected is None
        else _difference(group, number, baseline, recalibrated=True),
    )


def _difference(
    group: GroupRows, number: int, baseline: int | None, *, recalibrated: bool = False
) -> StepDifference | None:
    """A step minus its baseline; with the variance of the seeds if each data set has several."""
    rows = group.recalibrated if recalibrated else group.raw
    if baseline is None or rows is None:
        return None
    found = StepDifference(**vars(paired_difference(rows[number], rows[baseline], group.patients)))
    means = []
    for seeds in group.seeds:
        table = seeds.recalibrated if recalibrated else seeds.raw
        if table is not None:
            means.append((seeds.n_rows, table[:, number] - table[:, baseline]))
    priced = seed_variance(found, means) if means else None
    if priced is None:
        return found
    variance, degrees = priced
    width = t_quantile(degrees) * variance**0.5
    ends = {"low": found.mean - width, "high": found.mean + width}
    return replace(found, **ends, degrees=degrees, priced=True)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
