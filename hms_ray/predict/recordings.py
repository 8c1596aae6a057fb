"""Recordings to predict: those of ``test.csv``, or the rows of a ``train.csv``.

Both are packed by the same code as for training, so their windows hold the same numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from hms_ray.competition.check import require_sound, require_sound_test
from hms_ray.competition.read import (
    TEST_FILE,
    read_labels,
    read_test_table,
)
from hms_ray.competition.rows import Unit, Window, make_rows
from hms_ray.config.inputs import InputConfig, used_sources
from hms_ray.dataset.missing_signal import Policy, apply_missing_signal_policy
from hms_ray.dataset.packs import Bars, build_packs
from hms_ray.dataset.sources import WINDOW_COLUMNS, pack_source, source_key
from hms_ray.errors import DataError
from hms_ray.pack.build import default_pack_dir
from hms_ray.pack.sources import PackSource
from hms_ray.pack.store import Pack
from hms_ray.text import shortened_list

TEST_PACKS: Final = "test"
"""Folder of the packs of test recordings, below the folder of packs: a recipe has both."""


@dataclass(frozen=True, eq=False)
class Recordings:
    """Rows to predict, with the packs that hold their windows.

    Attributes:
        rows: (n) with ``row_id`` (text), ``eeg_id``, ``spectrogram_id``, ``patient_id``,
            ``eeg_start`` (first sample) and ``spectrogram_start`` (first row), int64.
        packs: ``source_key`` -> pack, for every source of the models.
        notes: one line per pack with rows without a usable signal.
    """

    rows: pd.DataFrame
    packs: Mapping[str, Pack]
    notes: tuple[str, ...] = ()

    def packs_of(self, config: InputConfig) -> dict[str, Pack]:
        """Source -> pack, for the sources that an input uses."""
        return {
            name: self.packs[source_key(name, recipe)]
            for name, recipe in used_sources(config).items()
        }


def recordings_of_test(
    data_dir: str | Path,
    inputs: Sequence[InputConfig],
    *,
    pack_dir: str | Path | None = None,
    bars: Bars | None = None,
) -> Recordings:
    """The recordings of ``test.csv``, in its order.

    A test EEG is one window of 50 s and a test spectrogram one of ten minutes, cut around
    the same moment. Other lengths are refused, because the part to predict is unknown. Only
    files that some input uses are read. Missing signals are zero-filled, as with
    ``data.unusable: keep``, so that every recording is predicted.

    Args:
        data_dir: competition folder with ``test.csv``, ``test_eegs/`` and
            ``test_spectrograms/``.
        inputs: of all models that will predict.
        pack_dir: folder of packs, with those of test recordings in ``test``; default:
            ``packed`` in the competition folder.
        bars: creates the progress bar of each pack.

    Raises:
        FaultyDataError: if recordings are missing, damaged or malformed, or have another
            length.
        DataError: if ``test.csv`` is missing or malformed, or lists an EEG twice.
        PackError: see ``build_packs``.
    """
    data_dir = Path(data_dir)
    rows = read_test_rows(data_dir)
    forms = {
        key: replace(form, directory=f"test_{form.directory.removeprefix('train_')}")
        for key, form in _forms(inputs).items()
    }
    place = Path(pack_dir or default_pack_dir(data_dir))
    columns = {WINDOW_COLUMNS[form.name][0] for form in forms.values()}
    read = {f"test_{column.removesuffix('_id')}" for column in columns}
    require_sound_test(data_dir, read, cache_dir=place, tolerated=("no_numbers",))
    return _packed(rows, build_packs(data_dir, place / TEST_PACKS, forms, rows, bars))


def recordings_of_rows(
    data_dir: str | Path,
    inputs: Sequence[InputConfig],
    unit: Unit,
    window: Window,
    *,
    without: Collection[int] = (),
    pack_dir: str | Path | None = None,
    bars: Bars | None = None,
) -> Recordings:
    """The training rows of a folder; votes are not used.

    Arguments are those of ``recordings_of_test`` and ``make_rows``; rows of the patients
    ``without`` are skipped.

    Raises:
        FaultyDataError: if the folder has faults.
        DataError: see ``make_rows`` and ``build_packs``.
        PackError: see ``build_packs``.
    """
    data_dir = Path(data_dir)
    place = Path(pack_dir or default_pack_dir(data_dir))
    require_sound(data_dir, cache_dir=place, tolerated=("no_numbers",))
    rows = make_rows(read_labels(data_dir), unit, window)
    rows = rows[~rows["patient_id"].isin(without)].reset_index(drop=True)
    return _packed(rows, build_packs(data_dir, place, _forms(inputs), rows, bars))


def recordings_of_held_out(
    data_dir: str | Path,
    rows: pd.DataFrame,
    inputs: Sequence[InputConfig],
    policy: Policy,
    *,
    pack_dir: str | Path | None = None,
    bars: Bars | None = None,
) -> Recordings:
    """Rows of held-out patients, with packs of their own.

    Args:
        data_dir: competition folder.
        rows: see ``make_rows``.
        inputs: of all models that will predict.
        policy: ``data.unusable``. Rows without a usable signal are dropped with ``drop``,
            as from the training rows, else zero-filled.
        pack_dir: folder of packs; default: ``packed`` in the competition folder.
        bars: creates the progress bar of each pack.

    Raises:
        DataError: see ``build_packs``; or if no row has a usable signal.
        PackError: see ``build_packs``.
    """
    data_dir = Path(data_dir)
    place = Path(pack_dir or default_pack_dir(data_dir))
    packs = build_packs(data_dir, place, _forms(inputs), rows, bars, only_rows=True)
    is_kept, notes = apply_missing_signal_policy(
        rows, packs, "drop" if policy == "drop" else "keep"
    )
    if not is_kept.any():
        raise DataError(
            "some held-out rows must have a usable signal in each source",
            got="none",
            where=data_dir,
            fix="Check the recordings of the held-out patients.",
        )
    return Recordings(rows[is_kept].reset_index(drop=True), packs, notes)


def read_test_rows(data_dir: Path) -> pd.DataFrame:
    """The recordings of ``test.csv`` as rows with windows that begin at 0.

    Raises:
        DataError: if an EEG is listed twice; see ``read_test_table``.
    """
    table = read_test_table(data_dir)
    twice = table["eeg_id"][table["eeg_id"].duplicated()].unique()
    if len(twice):
        raise DataError(
            f"an EEG must be listed once in {TEST_FILE}",
            got=f"{shortened_list(twice.tolist(), 3)} several times",
            where=data_dir / TEST_FILE,
            fix="Remove the other rows.",
        )
    row_ids = table["eeg_id"].astype(str)
    return table.assign(row_id=row_ids, eeg_start=np.int64(0), spectrogram_start=np.int64(0))


def _forms(inputs: Sequence[InputConfig]) -> dict[str, PackSource]:
    return {
        source_key(name, recipe): pack_source(name, recipe)
        for config in inputs
        for name, recipe in used_sources(config).items()
    }


def _packed(rows: pd.DataFrame, packs: dict[str, Pack]) -> Recordings:
    _, notes = apply_missing_signal_policy(rows, packs, "keep")
    return Recordings(rows, packs, notes)
