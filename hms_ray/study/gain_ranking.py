"""Trials of a study by blend gain, valued by the latest reference, and ties among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from hms_ray.evaluate.intervals import PatientSums, sum_by_patient
from hms_ray.evaluate.metric import OBJECTIVES, SCORE_NAMES, Array, named_scores
from hms_ray.study.folder import StudyFolder
from hms_ray.study.gains import StudyGains
from hms_ray.study.ties import tied_with_best


class GainRanking:
    """Gains against the latest reference, kept up to date as trials end.

    Args:
        folder: of a study whose metric is ``blend_gain``.
        rows: of the study.
    """

    def __init__(self, folder: StudyFolder, rows: pd.DataFrame) -> None:
        self._folder, self._gains = folder, StudyGains(folder)
        self._counted = (rows["total_votes"] >= OBJECTIVES[folder.objective]).to_numpy()
        self._patients = rows["patient_id"].to_numpy()[self._counted]
        self._reference = -1
        self._means: dict[int, float] = {}
        self._losses: dict[int, Array] = {}
        self._sizes = np.empty(0)

    def records(self, finished: Sequence[int]) -> dict[int, dict[str, Any]]:
        """``gain``, ``reference`` and ``tied`` of finished trials, for ``report.leaderboard``.

        A tie: the 95% interval of the difference of gains to the largest one contains 0.
        """
        latest = self._gains.n_references - 1
        if latest < 0 or not finished:
            return {}
        if latest != self._reference:
            self._reference, self._means, self._losses = latest, {}, {}
        for number in finished:
            if number not in self._means:
                self._add(number)
        # Stable: equal gains by number.
        order = sorted(sorted(finished), key=lambda number: -self._means[number])
        losses = PatientSums(np.stack([self._losses[number] for number in order]), self._sizes)
        tied = tied_with_best(order, losses)
        return {
            number: {
                "gain": self._means[number],
                "reference": f"{latest:04d}",
                "tied": number in tied,
            }
            for number in finished
        }

    def _add(self, number: int) -> None:
        gain = self._gains.gain(number, self._reference)
        found = sum_by_patient(-gain.rows[None, self._counted], self._patients)
        self._means[number], self._losses[number] = gain.mean, found.sums[0]
        self._sizes = found.sizes

    def text(self) -> str:
        """What the gains are relative to, in sentences; empty without a reference."""
        latest = self._gains.n_references - 1
        if latest < 0:
            return ""
        reference, objective = self._gains.reference(latest), self._folder.objective
        name = SCORE_NAMES[objective]
        return (
            f"Gain: how much {name} falls, in nats, if the trial is added to {reference.title}, "
            f"whose out-of-sample score is {named_scores(reference.scores or {})}; a member is "
            "measured against the reference without it. Gains of different references cannot be "
            "compared."
        )

    def to_json(self) -> dict[str, Any] | None:
        """The reference as JSON data: number, method, members, scores; None if there is none."""
        latest = self._gains.n_references - 1
        if latest < 0:
            return None
        found = self._gains.reference(latest)
        return {
            "number": found.number,
            "method": found.method,
            "members": [member["name"] for member in found.members],
            "scores": found.scores,
        }
