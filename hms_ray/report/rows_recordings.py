"""The recordings of a study's rows: where they are, the last ones in memory, label rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.read import (
    eeg_path,
    read_eeg,
    read_labels,
    read_spectrogram,
    spectrogram_path,
)
from hms_ray.competition.rows import UNIT_KEYS, Unit
from hms_ray.competition.schema import EEG_WINDOW_S, VOTE_COLUMNS
from hms_ray.dataset.hold_out import DATA_DIR
from hms_ray.errors import DataError
from hms_ray.storage.structured_files import read_json
from hms_ray.study.folder import StudyFolder

_CACHED: Final = 16
"""Recordings in memory: an hour of EEG has 58 MB, most have less than 1 MB."""
OWN_S: Final = 10
"""Experts judged the ten seconds in the middle of a label row's window."""
NAME_DATA: Final = "Name the competition folder: hms-ray rows STUDY --data DIR"

Signals = NDArray[np.float32]


def data_folder(folder: StudyFolder, rows: pd.DataFrame, given: Path | None) -> Path | None:
    """The competition folder of a study.

    Args:
        folder: the study.
        rows: its rows.
        given: by the user; need not exist.

    Returns:
        The given folder; else the one that the study's rows record; else the one of its last
        command, relative to this folder or to that of the results. None if unknown.
    """
    if given is not None:
        return given
    if recorded := rows.attrs.get(DATA_DIR):
        return Path(recorded)
    file = folder.path / "environment.json"
    words: list[str] = []
    if file.is_file():
        runs = read_json(file, list)
        words = list(runs[-1].get("command") or []) if runs else []
    if "--data" not in words[:-1]:
        return None
    named = Path(words[words.index("--data") + 1])
    places = [named, folder.path.resolve().parents[1] / named]
    return next((place for place in places if place.is_dir()), named)


class Recordings:
    """Recordings of a competition folder, the last ones kept in memory.

    Args:
        folder: competition folder, which need not exist; None if unknown.
        unit: of the study's rows.
    """

    def __init__(self, folder: Path | None, unit: Unit) -> None:
        self.folder = folder
        self._unit = unit
        # A page requests its parts at the same time; one file must not be read twice.
        self._reading = Lock()
        self._eeg: Callable[[int], Signals] = lru_cache(_CACHED)(self._read_eeg)
        self._spectrogram: Callable[[int], Signals] = lru_cache(_CACHED)(self._read_spectrogram)
        self._labels: pd.DataFrame | None = None
        self.labels_problem: str | None = None

    def missing(self) -> str | None:
        """Why there are no recordings at all, as a sentence; None if the folder exists."""
        if self.folder is None:
            return f"The study does not record its competition folder. {NAME_DATA}"
        if not self.folder.is_dir():
            return f"The competition folder {self.folder} does not exist. {NAME_DATA}"
        return None

    def eeg(self, eeg_id: int) -> Signals:
        """A whole EEG, float32 (samples, 20) in microvolts; only to be read.

        Raises:
            DataError: if there is no folder, or the file is missing or damaged.
        """
        with self._reading:
            return self._eeg(eeg_id)

    def spectrogram(self, spectrogram_id: int) -> Signals:
        """A whole spectrogram, float32 (rows, 400); only to be read.

        Raises:
            DataError: as ``eeg``.
        """
        with self._reading:
            return self._spectrogram(spectrogram_id)

    def _read_eeg(self, eeg_id: int) -> Signals:
        return read_eeg(eeg_path(self._existing(), eeg_id))

    def _read_spectrogram(self, spectrogram_id: int) -> Signals:
        return read_spectrogram(spectrogram_path(self._existing(), spectrogram_id))

    def _existing(self) -> Path:
        if self.folder is None or not self.folder.is_dir():
            raise DataError(
                "the competition folder must exist",
                got="an unknown folder" if self.folder is None else None,
                where=self.folder,
                fix=NAME_DATA,
            )
        return self.folder

    def load_labels(self) -> None:
        """Reads the label rows; ``labels_problem`` says why there are none."""
        if self.missing() is not None:
            return
        try:
            labels = read_labels(self._existing())
        except DataError as error:
            self.labels_problem = f"The label rows are not marked: {error}"
            return
        self._labels = labels.sort_values("eeg_id", kind="stable", ignore_index=True)

    def merged_labels(self, row: pd.Series[Any]) -> list[dict[str, Any]]:
        """The label rows that a row was merged from, in time order.

        Args:
            row: of the study, see ``make_rows``.

        Returns:
            For each: ``sub_id``, and ``start_s``, ``end_s``, its own ten seconds, in seconds
            of the recording. Empty if the label table is not at hand.
        """
        if self._labels is None:
            return []
        ids = self._labels["eeg_id"].to_numpy()
        low, high = np.searchsorted(ids, [row["eeg_id"], row["eeg_id"] + 1])
        labels = self._labels.iloc[int(low) : int(high)]
        if self._unit == "label":
            labels = labels[labels["eeg_sub_id"] == int(row["row_id"].split("-")[1])]
        elif UNIT_KEYS[self._unit][1:]:
            votes = row[list(VOTE_COLUMNS)].to_numpy(np.int64)
            labels = labels[(labels[list(VOTE_COLUMNS)].to_numpy() == votes).all(axis=1)]
        begin = (EEG_WINDOW_S - OWN_S) / 2
        starts = labels["eeg_label_offset_seconds"].to_numpy(np.float64) + begin
        found = [
            {"sub_id": int(sub_id), "start_s": float(start), "end_s": float(start) + OWN_S}
            for sub_id, start in zip(labels["eeg_sub_id"], starts, strict=True)
        ]
        return sorted(found, key=lambda label: (label["start_s"], label["sub_id"]))
