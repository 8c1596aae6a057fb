"""Numbers that follow from a trial's predictions, kept beside them so that they are made once."""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
import pandas as pd

from hms_ray.competition.schema import N_CLASSES, TARGET_COLUMNS
from hms_ray.evaluate.metric import Array, kl_rows
from hms_ray.evaluate.oof import align_oof, probabilities_of
from hms_ray.storage.atomic import whole_file
from hms_ray.storage.hashing import file_sha256, table_fingerprint
from hms_ray.study.trial import OOF_FILE, read_trial_oof

ROW_SCORES_FILE: Final = "row_scores.npz"
PREDICTIONS_FILE: Final = "predictions.npz"


class KeptArray(ABC):
    """An array made from the predictions of each trial of one study.

    A kept array is used only if it was made from the present predictions and rows, which its
    file identifies by SHA-256; else it is made again.

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
        kept = self._kept(trial)
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
        # An array that a power failure damages is made again.
        with whole_file(trial / self.file, fsync=False) as draft, draft.open("wb") as file:
            np.savez(file, kl=made, oof_sha256=oof_sha256, rows_sha256=self._rows_sha256)
        return made

    def _made(self, trial: Path) -> Array:
        return self.make(probabilities_of(read_trial_oof(trial, self._rows)))

    def _kept(self, trial: Path) -> Array | None:
        try:
            # Opened here: numpy leaves a damaged file open.
            with (trial / self.file).open("rb") as file, np.load(file) as stored:
                of_rows, of_oof = str(stored["rows_sha256"]), str(stored["oof_sha256"])
                values: Array = stored["kl"]
            current = of_rows == self._rows_sha256 and of_oof == file_sha256(trial / OOF_FILE)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            # Missing or damaged: made again, which also reports missing predictions.
            return None
        return values if current and values.shape == self.shape else None


class RowScores(KeptArray):
    """KL (n,) of each row, in the order of the rows."""

    file = ROW_SCORES_FILE

    @property
    def shape(self) -> tuple[int, ...]:
        """See ``KeptArray``."""
        return (len(self._rows),)

    def make(self, probabilities: Array) -> Array:
        """See ``KeptArray``."""
        return kl_rows(self._rows[list(TARGET_COLUMNS)].to_numpy(), probabilities)


class Predictions(KeptArray):
    """Probabilities (n, 6) in the order of the rows.

    Gains need them many times, and the table takes some five times as long to read and check.
    """

    file = PREDICTIONS_FILE

    @property
    def shape(self) -> tuple[int, ...]:
        """See ``KeptArray``."""
        return len(self._rows), N_CLASSES

    def make(self, probabilities: Array) -> Array:
        """See ``KeptArray``."""
        return probabilities


def scores_of_fold(rows: pd.DataFrame, oof: pd.DataFrame) -> Array:
    """KL (n,) of the rows of one fold, from its predictions in any order.

    Raises:
        PredictionError: if the predictions do not match the rows.
    """
    aligned = align_oof(oof, rows.reset_index(drop=True))
    return kl_rows(rows[list(TARGET_COLUMNS)].to_numpy(), probabilities_of(aligned))
