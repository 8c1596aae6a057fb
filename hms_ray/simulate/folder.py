"""Writing simulated patients as a competition folder."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from hms_ray.competition.schema import (
    CLASSES,
    EEG_WINDOW_SAMPLES,
    LABEL_COLUMNS,
    N_CLASSES,
    PROBABILITY_COLUMNS,
    SPECTROGRAM_WINDOW_ROWS,
    VOTE_COLUMNS,
)
from hms_ray.competition.write import write_eeg, write_parquet, write_spectrogram
from hms_ray.errors import DataError
from hms_ray.simulate.patients import (
    MAX_EEGS,
    MAX_LABELS,
    MAX_RECORDINGS,
    JudgedRecording,
    simulate_patient,
)
from hms_ray.simulate.raters import FEATURES, GROUPS, vote_odds

TRUTH_FILE: Final = "truth.parquet"
"""What only a simulator knows; nothing in training reads it."""
TRUTH_COLUMNS: Final = tuple(f"true_{name.lower()}" for name in CLASSES)
"""Odds of a vote for each class, for the experts who judged the row."""
TIER_TRUTH_COLUMNS: Final = {
    group.name: tuple(f"{column}_{group.name}" for column in TRUTH_COLUMNS) for group in GROUPS
}
"""The same, had the row been judged by experts of each tier of vote totals."""

MAX_PATIENTS: Final = 60_000
N_TEST: Final = 4
_SPLITS: Final = ("train", "test")
# Primes near the largest ids of the real files: x -> a x + b modulo a prime never repeats.
_PRIMES: Final = {
    "patient": 65_521,
    "spectrogram": 2_147_483_647,
    "eeg": 4_294_967_291,
    "label": 4_294_967_291,
}
_MULTIPLIERS: Final = {
    "patient": 30_103,
    "spectrogram": 1_103_515_245,
    "eeg": 2_654_435_761,
    "label": 1_640_531_527,
}

Progress = Callable[[int, int], None]
Tables = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def simulate_folder(
    out: str | os.PathLike[str],
    n_patients: int,
    seed: int,
    processes: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write a folder in the competition's format, and the truth beside it.

    Patient i of a seed is the same whatever ``n_patients`` and ``processes`` are. The
    folder appears in one piece: it is written under another name and then renamed.

    Args:
        out: folder to write; it must not exist yet or be empty.
        n_patients: training patients, 1 to 60,000; four more make the test set.
        seed: at least 0.
        processes: processes to use; one BLAS thread each.
        progress: called with (patients done, patients in all).

    Returns:
        The folder, which holds ``train.csv``, ``train_eegs/``, ``train_spectrograms/``,
        ``test.csv``, ``test_eegs/``, ``test_spectrograms/``, ``sample_submission.csv`` and
        ``truth.parquet``: by (``eeg_id``, ``eeg_sub_id``) the six true odds of a vote, for
        the row's own tier and for every tier, and the features that experts judged.

    Raises:
        DataError: a number is out of range, or ``out`` is not an empty or new folder.
    """
    out = Path(out)
    _check_arguments(out, n_patients, seed, processes)
    with _written_in_one_piece(out) as folder:
        for split in _SPLITS:
            (folder / f"{split}_eegs").mkdir()
            (folder / f"{split}_spectrograms").mkdir()
        tasks = [(folder, seed, "train", index) for index in range(n_patients)]
        tasks += [(folder, seed, "test", index) for index in range(N_TEST)]
        tables = _run(tasks, processes, progress)
        _write_train_tables(folder, tables[:n_patients])
        _write_test_tables(folder, tables[n_patients:])
    return out


def _check_arguments(out: Path, n_patients: int, seed: int, processes: int) -> None:
    if not 1 <= n_patients <= MAX_PATIENTS:
        raise DataError(f"the number of patients must be 1 to {MAX_PATIENTS}", got=n_patients)
    if seed < 0:
        raise DataError("the seed must be at least 0", got=seed)
    if processes < 1:
        raise DataError("the number of processes must be at least 1", got=processes)
    if out.exists() and not out.is_dir():
        raise DataError("simulated data needs a folder", got="a file", where=out)
    if out.is_dir() and any(out.iterdir()):
        raise DataError(
            "simulated data must go to a new or empty folder",
            got=f"a folder with {sum(1 for _ in out.iterdir())} entries",
            where=out,
            fix="Choose another --out, or delete that folder first.",
        )


@contextmanager
def _written_in_one_piece(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that takes its place when all went well."""
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.parent / f".{out.name}.partial-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
        folder.replace(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


Task = tuple[Path, int, str, int]


def _run(tasks: list[Task], processes: int, progress: Progress | None) -> list[Tables]:
    """The tables of all patients, in the order of ``tasks``."""
    tables: list[Tables | None] = [None] * len(tasks)
    for done, (position, table) in enumerate(_completed(tasks, processes), start=1):
        tables[position] = table
        if progress is not None:
            progress(done, len(tasks))
    return [table for table in tables if table is not None]


def _completed(tasks: list[Task], processes: int) -> Iterator[tuple[int, Tables]]:
    if processes == 1:
        yield from ((position, _write_patient(task)) for position, task in enumerate(tasks))
        return
    # A forked child would inherit threads' locks; spawned ones start clean on every system.
    context = multiprocessing.get_context("spawn")
    workers = min(processes, len(tasks))
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            futures = {pool.submit(_write_patient, t): n for n, t in enumerate(tasks)}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write_patient(task: Task) -> Tables:
    """Simulate one patient, write its files and return its label and truth rows."""
    folder, seed, split, index = task
    test = split == "test"
    key = (_SPLITS.index(split), index)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
    number = MAX_PATIENTS + index if test else index
    labels: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    with threadpool_limits(1):
        judged = simulate_patient(rng, single=test)
    for position, recording in enumerate(judged):
        rows, true = _recording_rows(recording, number, number * MAX_RECORDINGS + position, seed)
        _write_recording(folder, split, recording, rows)
        labels += rows
        truth += true
    return labels, truth


def _identifier(kind: str, number: int, seed: int) -> int:
    """An id that no other number of this kind has, scattered like the real ones."""
    scattered = _MULTIPLIERS[kind] * (number + 1) + 7_919 * (seed + 1)
    return scattered % _PRIMES[kind]


def _recording_rows(judged: JudgedRecording, patient: int, recording: int, seed: int) -> Tables:
    """Label rows and truth rows of one recording."""
    looks = judged.recording.looks
    by_tier = np.stack([vote_odds(judged.recording.features, group) for group in GROUPS])
    labels: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    sub_ids = [0] * MAX_EEGS
    for position, look in enumerate(looks):
        votes = judged.votes[position]
        eeg = recording * MAX_EEGS + look.eeg
        for offset in look.offsets_s:
            sub_id = sub_ids[look.eeg]
            sub_ids[look.eeg] += 1
            keys = {"eeg_id": _identifier("eeg", eeg, seed), "eeg_sub_id": sub_id}
            labels.append(
                {
                    **keys,
                    "eeg_label_offset_seconds": float(offset),
                    "spectrogram_id": _identifier("spectrogram", recording, seed),
                    "spectrogram_sub_id": len(labels),
                    "spectrogram_label_offset_seconds": float(look.spectrogram_start_s + offset),
                    "label_id": _identifier("label", eeg * MAX_LABELS + sub_id, seed),
                    "patient_id": _identifier("patient", patient, seed),
                    "expert_consensus": CLASSES[int(votes.argmax())],
                    **dict(zip(VOTE_COLUMNS, votes.tolist(), strict=True)),
                }
            )
            truth.append(keys | _truth(judged, position, by_tier[:, position]))
    return labels, truth


def _truth(judged: JudgedRecording, look: int, by_tier: NDArray[np.float64]) -> dict[str, Any]:
    tier = int(judged.tiers[look])
    row: dict[str, Any] = {"tier": GROUPS[tier].name}
    row |= dict(zip(TRUTH_COLUMNS, by_tier[tier].tolist(), strict=True))
    for group, odds in zip(GROUPS, by_tier, strict=True):
        row |= dict(zip(TIER_TRUTH_COLUMNS[group.name], odds.tolist(), strict=True))
    return row | dict(zip(FEATURES, judged.recording.features[look].tolist(), strict=True))


def _write_recording(
    folder: Path, split: str, judged: JudgedRecording, rows: list[dict[str, Any]]
) -> None:
    recording = judged.recording
    test = split == "test"
    name = f"{rows[0]['spectrogram_id']}.parquet"
    write_spectrogram(
        folder / f"{split}_spectrograms" / name,
        recording.spectrogram[: SPECTROGRAM_WINDOW_ROWS if test else None],
        np.int16 if test else np.int64,
    )
    eeg_ids = list(dict.fromkeys(row["eeg_id"] for row in rows))
    for eeg_id, eeg in zip(eeg_ids, recording.eegs, strict=True):
        path = folder / f"{split}_eegs" / f"{eeg_id}.parquet"
        write_eeg(path, eeg[: EEG_WINDOW_SAMPLES if test else None])


def _write_train_tables(folder: Path, tables: list[Tables]) -> None:
    labels = pd.DataFrame([row for rows, _ in tables for row in rows], columns=list(LABEL_COLUMNS))
    labels.to_csv(folder / "train.csv", index=False)
    write_parquet(pd.DataFrame([row for _, rows in tables for row in rows]), folder / TRUTH_FILE)


def _write_test_tables(folder: Path, tables: list[Tables]) -> None:
    rows = [row for labels, _ in tables for row in labels]
    test = pd.DataFrame(rows)[["spectrogram_id", "eeg_id", "patient_id"]]
    test.to_csv(folder / "test.csv", index=False)
    submission = test[["eeg_id"]].assign(**dict.fromkeys(PROBABILITY_COLUMNS, 1 / N_CLASSES))
    submission.to_csv(folder / "sample_submission.csv", index=False)
