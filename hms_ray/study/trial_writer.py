"""Writes the trials of a study into its folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from hms_ray.competition.rows import ROW_UNIT
from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.experiment import Experiment
from hms_ray.config.space import Objective, Space
from hms_ray.errors import HmsRayError
from hms_ray.evaluate.metric import Array
from hms_ray.evaluate.oof import OPTIMISTIC, align_oof, probabilities_of, write_oof
from hms_ray.storage.atomic import IfExists
from hms_ray.storage.hashing import file_sha256
from hms_ray.study.row_scores import RecalibratedRows, RowScores
from hms_ray.study.trial import (
    OOF_FILE,
    PRUNED,
    STOPPED,
    State,
    trial_draft,
)

if TYPE_CHECKING:
    from hms_ray.experiment.run import ExperimentResult

_NO_RESULT: Final[Mapping[str, Any]] = {
    "scores": {},
    "keys": {},
    "reused": [],
    "optimistic": False,
    "fold_minutes": 0.0,
    "saved_minutes": 0.0,
}


class TrialWriter(ABC):
    """Writes trials; a subclass has their folders and the rows that they predict."""

    @abstractmethod
    def trial_path(self, number: int) -> Path:
        """Folder of a trial, which may not exist yet."""

    @abstractmethod
    def space(self) -> Space:
        """The resolved search space."""

    @abstractmethod
    def rows(self) -> pd.DataFrame:
        """The study's training rows with votes, targets and folds."""

    @property
    @abstractmethod
    def objective(self) -> Objective:
        """The score that chooses trials."""

    def write_trial(
        self,
        number: int,
        point: Mapping[str, Any],
        experiment: Experiment,
        result: ExperimentResult,
    ) -> None:
        """Stores a finished trial as a whole or not at all."""
        recalibrated = self._recalibrated(result.oof)
        data = {
            "number": number,
            "point": dict(point),
            "scores": result.scores,
            "recalibrated": {
                name: None if kl is None else float(kl.mean()) for name, kl in recalibrated.items()
            },
            "keys": result.keys,
            "reused": list(result.reused),
            "optimistic": result.optimistic,
            "fold_minutes": result.fold_minutes,
            "saved_minutes": result.saved_minutes,
            "reason": None,
        }
        resources = self.space().resources
        with trial_draft(self.trial_path(number), experiment, resources, data) as draft:
            oof = result.oof.copy()
            oof.attrs = {ROW_UNIT: experiment.data.unit}
            if result.optimistic:
                oof.attrs[OPTIMISTIC] = True
            write_oof(draft / OOF_FILE, oof)
            # Made again when they are read: a result is not lost for them.
            with suppress(HmsRayError, OSError):
                RowScores(self.rows()).write(draft)
                if (kl := recalibrated.get(self.objective)) is not None:
                    kept = RecalibratedRows(self.rows(), self.objective)
                    kept.keep(draft, kl, file_sha256(draft / OOF_FILE))

    def _recalibrated(self, oof: pd.DataFrame) -> dict[str, Array | None]:
        """See ``recalibrated_rows``; empty without usable rows.

        They are made here alone: a study of many trials is read in less time than they take.
        """
        # Fits take a third of the time that a short command needs to start.
        from hms_ray.evaluate.calibration import recalibrated_rows

        with suppress(HmsRayError, OSError):
            rows = self.rows()
            return recalibrated_rows(
                rows[list(TARGET_COLUMNS)].to_numpy(),
                probabilities_of(align_oof(oof, rows)),
                rows["patient_id"].to_numpy(),
                rows["total_votes"].to_numpy(),
            )
        return {}

    def write_failure(
        self,
        number: int,
        point: Mapping[str, Any],
        experiment: Experiment,
        reason: str,
        details: str = "",
        *,
        state: State = "failed",
        if_exists: IfExists = "replace",
    ) -> None:
        """Stores why a trial failed, has diverged or was stopped, in one line.

        All details of a failure are in ``error.txt``; a stopped trial has none. The result of a
        finished trial stays, even if this machine cannot see it yet: it was written before its
        process was lost. With ``if_exists="keep"``, another record of the failure stays too.
        """
        data = {**_NO_RESULT, "number": number, "point": dict(point), "reason": reason}
        data["state"] = state
        path, resources = self.trial_path(number), self.space().resources
        with trial_draft(path, experiment, resources, data, if_exists) as draft:
            if state != STOPPED:
                (draft / "error.txt").write_text(details or reason, encoding="utf-8")

    def write_pruned(
        self,
        number: int,
        point: Mapping[str, Any],
        experiment: Experiment,
        result: ExperimentResult,
        reason: str,
        estimate: float,
        n_folds: int,
    ) -> None:
        """Stores a trial that was stopped between folds; its folds stay in the fold store.

        Args:
            number: of the trial.
            point: its values.
            experiment: what was trained.
            result: of the trained folds.
            reason: of the stop, in one line.
            estimate: of the score with all folds.
            n_folds: folds of the study.
        """
        data = {
            **_NO_RESULT,
            "number": number,
            "point": dict(point),
            "keys": result.keys,
            "reused": list(result.reused),
            "optimistic": result.optimistic,
            "fold_minutes": result.fold_minutes,
            "saved_minutes": result.saved_minutes,
            "reason": reason,
            "state": PRUNED,
            "estimate": estimate,
            "n_folds": n_folds,
        }
        with trial_draft(self.trial_path(number), experiment, self.space().resources, data):
            pass
