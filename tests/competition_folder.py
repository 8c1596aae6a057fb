"""A tiny competition folder in the real format, with random signals.

Spectrograms have a weak mark of the row's class, enough to test that a model's loss falls.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hms_ray.competition.schema import (
    CLASSES,
    EEG_RATE_HZ,
    EEG_WINDOW_S,
    ELECTRODES,
    LABEL_COLUMNS,
    N_CLASSES,
    N_FREQUENCIES,
    PANELS,
    PROBABILITY_COLUMNS,
    SPECTROGRAM_COLUMNS,
    SPECTROGRAM_STEP_S,
    SPECTROGRAM_WINDOW_S,
    VOTE_COLUMNS,
)

TOTAL_VOTES = (3, 14, 2, 5, 1, 11, 7, 16)
"""Numbers of votes, used in turn, so that every tier occurs."""


def write_competition_folder(
    path: Path,
    n_patients: int = 12,
    seed: int = 0,
    *,
    eegs_per_patient: int = 2,
    eegs: bool = True,
    nan_gaps: bool = True,
) -> Path:
    """Write a folder and return its path.

    Every patient has ``eegs_per_patient`` EEGs of different classes, each with
    one to five label rows in one or two distinct vote tuples. Even patients
    have one spectrogram for all their EEGs, odd ones one per EEG. With 12
    patients of 2 EEGs each, every class has four EEGs. Recordings have exactly
    the length that the format requires.

    Args:
        path: folder to create, with its parents.
        n_patients: number of patients; their ids increase from 1,000.
        seed: of all random numbers.
        eegs_per_patient: EEGs of each patient.
        eegs: whether to write ``train_eegs/`` (0.8 MB per file); tests of training do not
            need them.
        nan_gaps: whether some EEGs and spectrograms have a gap of NaN.
    """
    rng = np.random.default_rng(seed)
    path = Path(path)
    for name in ("train_eegs", "train_spectrograms", "test_eegs", "test_spectrograms"):
        (path / name).mkdir(parents=True)
    labels = make_labels(rng, n_patients, eegs_per_patient)
    labels.to_csv(path / "train.csv", index=False)
    if eegs:
        for eeg_id, rows in labels.groupby("eeg_id"):
            seconds = int(rows["eeg_label_offset_seconds"].max()) + EEG_WINDOW_S
            gap = nan_gaps and eeg_id % 3 == 0
            write_eeg(
                path / "train_eegs" / f"{eeg_id}.parquet",
                eeg_values(rng, seconds * EEG_RATE_HZ, gap=gap),
            )
    for spectrogram_id, rows in labels.groupby("spectrogram_id"):
        seconds = int(rows["spectrogram_label_offset_seconds"].max()) + SPECTROGRAM_WINDOW_S
        values = spectrogram_values(
            rng, seconds // SPECTROGRAM_STEP_S, gap=nan_gaps and spectrogram_id % 3 == 0
        )
        for row in rows.itertuples():
            _mark_class(values, CLASSES.index(row.expert_consensus), row)
        write_spectrogram(path / "train_spectrograms" / f"{spectrogram_id}.parquet", values)
    _write_test_part(path, rng)
    return path


def make_labels(
    rng: np.random.Generator, n_patients: int = 12, eegs_per_patient: int = 2
) -> pd.DataFrame:
    """The label rows of ``write_competition_folder``, without writing anything."""
    rows: list[dict[str, object]] = []
    dealt = 0
    for patient in range(n_patients):
        spectrogram_offset = 0
        for number in range(eegs_per_patient):
            eeg = patient * eegs_per_patient + number
            first = (patient + number * (1 + patient // N_CLASSES)) % N_CLASSES
            if patient % 2:
                spectrogram_offset = 0
            offset, sub_id = 0, 0
            for _ in range(1 + int(rng.integers(2))):
                total = TOTAL_VOTES[dealt % len(TOTAL_VOTES)]
                dealt += 1
                votes = rng.multinomial(total, rng.dirichlet(np.full(N_CLASSES, 0.3)))
                # The first largest vote is the class meant for this EEG.
                votes[[first, votes.argmax()]] = votes[[votes.argmax(), first]]
                for _ in range(1 + int(rng.integers(3))):
                    rows.append(
                        {
                            "eeg_id": 500_000 + 7 * eeg,
                            "eeg_sub_id": sub_id,
                            "eeg_label_offset_seconds": float(offset),
                            "spectrogram_id": 40_000 + (eeg if patient % 2 else 1_000 + patient),
                            "spectrogram_sub_id": sub_id,
                            "spectrogram_label_offset_seconds": float(spectrogram_offset + offset),
                            "label_id": 9_000_000 + len(rows),
                            "patient_id": 1_000 + 3 * patient,
                            "expert_consensus": CLASSES[int(np.argmax(votes))],
                            **dict(zip(VOTE_COLUMNS, votes.tolist(), strict=True)),
                        }
                    )
                    offset, sub_id = offset + 2 * int(rng.integers(1, 4)), sub_id + 1
            spectrogram_offset += 100
    return pd.DataFrame(rows)[list(LABEL_COLUMNS)]


def eeg_values(rng: np.random.Generator, n_samples: int, *, gap: bool = False) -> np.ndarray:
    """Noise of 30 microvolts, float32 (n_samples, 20); with a NaN gap of one second."""
    values = (30 * rng.standard_normal((n_samples, len(ELECTRODES)))).astype(np.float32)
    if gap:
        values[1_000 : 1_000 + EEG_RATE_HZ, :3] = np.nan
    return values


def spectrogram_values(rng: np.random.Generator, n_rows: int, *, gap: bool = False) -> np.ndarray:
    """Power with log values around 0, float32 (n_rows, 400); with a NaN gap of five rows."""
    shape = (n_rows, len(SPECTROGRAM_COLUMNS))
    values = np.exp(rng.standard_normal(shape)).round(2).astype(np.float32)
    if gap:
        values[20:25] = np.nan
    return values


def _mark_class(values: np.ndarray, class_number: int, row: object) -> None:
    """Increase one sixth of the frequencies, in all panels, around the labelled ten seconds."""
    offset = int(row.spectrogram_label_offset_seconds)  # type: ignore[attr-defined]
    centre = (offset + SPECTROGRAM_WINDOW_S // 2) // SPECTROGRAM_STEP_S
    band = N_FREQUENCIES // N_CLASSES
    panels = values.reshape(len(values), len(PANELS), N_FREQUENCIES)
    panels[centre - 40 : centre + 40, :, band * class_number : band * (class_number + 1)] += 20.0


def write_eeg(file: Path, values: np.ndarray) -> None:
    """Write an EEG file: 20 float columns in the order of the electrodes."""
    columns = [np.ascontiguousarray(column) for column in values.T]
    pq.write_table(pa.table(columns, names=list(ELECTRODES)), file)


def write_spectrogram(file: Path, values: np.ndarray, time_type: str = "int64") -> None:
    """Write a spectrogram file: ``time`` (1, 3, 5, ... s) and 400 float columns."""
    time = np.arange(1, 2 * len(values), SPECTROGRAM_STEP_S, dtype=time_type)
    columns = [time, *(np.ascontiguousarray(column) for column in values.T)]
    pq.write_table(pa.table(columns, names=["time", *SPECTROGRAM_COLUMNS]), file)


def _write_test_part(path: Path, rng: np.random.Generator) -> None:
    """Write one test recording: ``test.csv``, its files and the sample submission."""
    eeg_id, spectrogram_id = 700_001, 800_001
    pd.DataFrame(
        {"spectrogram_id": [spectrogram_id], "eeg_id": [eeg_id], "patient_id": [6_000]}
    ).to_csv(path / "test.csv", index=False)
    submission = {"eeg_id": [eeg_id], **{name: [1 / N_CLASSES] for name in PROBABILITY_COLUMNS}}
    pd.DataFrame(submission).to_csv(path / "sample_submission.csv", index=False)
    write_eeg(
        path / "test_eegs" / f"{eeg_id}.parquet",
        eeg_values(rng, EEG_WINDOW_S * EEG_RATE_HZ),
    )
    write_spectrogram(
        path / "test_spectrograms" / f"{spectrogram_id}.parquet",
        spectrogram_values(rng, SPECTROGRAM_WINDOW_S // SPECTROGRAM_STEP_S),
        time_type="int16",
    )
