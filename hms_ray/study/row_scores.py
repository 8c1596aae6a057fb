"""Row KLs of finished trials, kept beside their predictions so that they are made once."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.evaluate.metric import Array, kl_rows
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.storage.atomic import whole_file
from hms_ray.storage.hashing import file_sha256, table_fingerprint
from hms_ray.study.trial import OOF_FILE, read_trial_oof

ROW_SCORES_FILE: Final = "row_scores.npz"


class RowScores:
    """Row KLs of the trials of one study.

    Kept scores are used only if they were made from the present predictions and rows, which
    their file identifies by SHA-256; else they are made again.

    Args:
        rows: (n rows) the study's rows with votes, targets and folds.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        self._rows = rows
        self._rows_sha256 = table_fingerprint(rows[["row_id", *TARGET_COLUMNS]])

    def of(self, trial: Path) -> Array:
        """KL of each row, (n,) in the order of the rows.

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
        """Makes and keeps the scores of a trial; ``trial`` may be a draft of its folder.

        Raises:
            StudyError: as ``of``.
            OSError: if they cannot be written.
        """
        oof = trial / OOF_FILE
        # Before they are read: predictions that are replaced meanwhile do not match it.
        oof_sha256 = file_sha256(oof) if oof.is_file() else ""
        scores = self._made(trial)
        # Scores that a power failure damages are made again.
        with whole_file(trial / ROW_SCORES_FILE, fsync=False) as draft, draft.open("wb") as file:
            np.savez(file, kl=scores, oof_sha256=oof_sha256, rows_sha256=self._rows_sha256)
        return scores

    def _made(self, trial: Path) -> Array:
        probabilities = probabilities_of(read_trial_oof(trial, self._rows))
        return kl_rows(self._rows[list(TARGET_COLUMNS)].to_numpy(), probabilities)

    def _kept(self, trial: Path) -> Array | None:
        try:
            # Opened here: numpy leaves a damaged file open.
            with (trial / ROW_SCORES_FILE).open("rb") as file, np.load(file) as stored:
                of_rows, of_oof = str(stored["rows_sha256"]), str(stored["oof_sha256"])
                scores: Array = stored["kl"]
            current = of_rows == self._rows_sha256 and of_oof == file_sha256(trial / OOF_FILE)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            # Missing or damaged: made again, which also reports missing predictions.
            return None
        return scores if current and scores.shape == (len(self._rows),) else None
