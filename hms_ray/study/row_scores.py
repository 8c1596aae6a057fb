"""Numbers that follow from a trial's predictions, kept beside them and so made once."""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
import pandas as pd

from hms_ray.competition.schema import N_CLASSES, TARGET_COLUMNS
from hms_ray.config.space import Objective
from hms_ray.evaluate.metric import OBJECTIVES, Array, kl_rows
from hms_ray.evaluate.oof import align_oof, probabilities_of
from hms_ray.storage.atomic import whole_file
from hms_ray.storage.hashing import file_sha256, table_fingerprint
from hms_ray.study.trial import OOF_FILE, read_trial_oof

ROW_SCORES_FILE: Final = "row_scores.npz"
RECALIBRATED_FILE: Final = "recalibrated_rows.npz"
PREDICTIONS_FILE: Final = "predictions.npz"


class KeptArray(ABC):
    """An array that follows from the predictions of each trial of one study.

    A kept array is used only if it was made from the present predictions and rows, which its
    file identifies by SHA-256.

    Args:
        rows: (n rows) the study's rows with votes, targets and folds.
    """

    file: ClassVar[str]

    def __init__(self, rows: pd.DataFrame) -> None:
        self._rows = rows
        self._rows_sha256 = table_fingerprint(rows[["row_id", *TARGET_COLUMNS]])

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""

    def kept(self, trial: Path) -> Array | None:
        """The array in a trial's folder; None without a current one."""
        try:
            # Opened here: numpy leaves a damaged file open.
            with (trial / self.file).open("rb") as file, np.load(file) as stored:
                of_rows, of_oof = str(stored["rows_sha256"]), str(stored["oof_sha256"])
                values: Array = stored["kl"]
            oof = trial / OOF_FILE
            state = oof.stat()
            made_from = _sha256_of(oof, state.st_mtime_ns, state.st_size)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            # Missing or damaged.
            return None
        current = of_rows == self._rows_sha256 and of_oof == made_from
        return values if current and values.shape == self.shape else None

    def keep(self, trial: Path, values: Array, oof_sha256: str) -> None:
        """Keeps an array that was made from the predictions with this SHA-256.

        Raises:
            OSError: if it cannot be written.
        """
        # An array that a power failure damages is made again, or not shown.
        with whole_file(trial / self.file, fsync=False) as draft, draft.open("wb") as file:
            np.savez(file, kl=values, oof_sha256=oof_sha256, rows_sha256=self._rows_sha256)


@lru_cache(maxsize=1)
def _sha256_of(file: Path, changed_ns: int, size: int) -> str:
    """SHA-256 of a file; the arrays of one trial are read one after the other."""
    return file_sha256(file)


class MadeArray(KeptArray):
    """An array that is made again if no current one is kept."""

    @abstractmethod
    def make(self, probabilities: Array) -> Array:
        """The array, from predictions (n, 6) in the order of the rows."""

    def of(self, trial: Path) -> Array:
        """The array of a trial.

        Args:
            trial: folder of a finished trial.

        Raises:
            StudyError: if its predictions are missing, damaged or do not match the rows.
        """
        kept = self.kept(trial)
        if kept is not None:
            return kept
        with suppress(OSError):  # a folder that may only be read
            return self.write(trial)
        return self._made(trial)

    def write(self, trial: Path) -> Array:
        """Makes and keeps the array of a trial; ``trial`` may be a draft of its folder.

        Raises:
            StudyError: as ``of``.
            OSError: if it cannot be written.
        """
        oof = trial / OOF_FILE
        # Before they are read: predictions that are replaced meanwhile do not match it.
        oof_sha256 = file_sha256(oof) if oof.is_file() else ""
        made = self._made(trial)
        self.keep(trial, made, oof_sha256)
        return made

    def _made(self, trial: Path) -> Array:
        return self.make(probabilities_of(read_trial_oof(trial, self._rows)))


class RowScores(MadeArray):
    """KL (n,) of each row, in the order of the rows."""

    file = ROW_SCORES_FILE

    @property
    def shape(self) -> tuple[int, ...]:
        """See ``KeptArray``."""
        return (len(self._rows),)

    def make(self, probabilities: Array) -> Array:
        """See ``MadeArray``."""
        return kl_rows(self._rows[list(TARGET_COLUMNS)].to_numpy(), probabilities)


class RecalibratedRows(KeptArray):
    """KL (m,) of each row that counts for an objective, after nested recalibration.

    Its fits take longer than all else that a leaderboard does, so that only the process that
    writes a trial makes it.

    Args:
        rows: see ``KeptArray``.
        objective: of the study.
    """

    file = RECALIBRATED_FILE

    def __init__(self, rows: pd.DataFrame, objective: Objective) -> None:
        super().__init__(rows)
        self._n_counted = int((rows["total_votes"] >= OBJECTIVES[objective]).sum())

    @property
    def shape(self) -> tuple[int, ...]:
        """See ``KeptArray``."""
        return (self._n_counted,)


class Predictions(MadeArray):
    """Probabilities (n, 6) in the order of the rows.

    Gains need them many times, and the table takes some five times as long to read and check.
    """

    file = PREDICTIONS_FILE

    @property
    def shape(self) -> tuple[int, ...]:
        """See ``KeptArray``."""
        return len(self._rows), N_CLASSES

    def make(self, probabilities: Array) -> Array:
        """See ``MadeArray``."""
        return probabilities


def scores_of_fold(rows: pd.DataFrame, oof: pd.DataFrame) -> Array:
    """KL (n,) of the rows of one fold, from its predictions in any order.

    Raises:
        PredictionError: if the predictions do not match the rows.
    """
    aligned = align_oof(oof, rows.reset_index(drop=True))
    return kl_rows(rows[list(TARGET_COLUMNS)].to_numpy(), probabilities_of(aligned))
