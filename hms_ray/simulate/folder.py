"""Write simulated patients as a competition folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from hms_ray import __version__
from hms_ray.competition.schema import (
    EEG_WINDOW_SAMPLES,
    N_CLASSES,
    PROBABILITY_COLUMNS,
    SPECTROGRAM_WINDOW_ROWS,
)
from hms_ray.competition.write import write_eeg, write_parquet, write_spectrogram
from hms_ray.errors import DataError, ResourceError
from hms_ray.pack.worker_pool import WorkerPool
from hms_ray.simulate.cohort import (
    LABEL_TABLE_FILE,
    MAX_PATIENTS,
    N_TEST,
    SPLITS,
    TRUTH_FILE,
    Cohort,
    RecordingRows,
    labels_of,
    truth_of,
)
from hms_ray.simulate.options import CONTROLS, PROFILE_NAMES, Control, ProfileName
from hms_ray.simulate.recording import Recording, render
from hms_ray.storage.atomic import whole_folder
from hms_ray.storage.drafts import remove_leftovers
from hms_ray.text import counted

MANIFEST_FILE: Final = "simulation.json"
"""How the folder was simulated; nothing in training reads it."""

Progress = Callable[[int, int], None]


def simulate_folder(
    out: str | os.PathLike[str],
    n_patients: int,
    seed: int,
    processes: int = 1,
    progress: Progress | None = None,
    *,
    profile: ProfileName = "small",
    controls: Iterable[Control] = (),
    n_signals: int | None = None,
) -> Path:
    """Write a folder in the competition's format, with its truth.

    Patient i of a seed does not depend on ``n_patients``, ``n_signals`` and ``processes``.
    The folder is written under another name and then renamed.

    Args:
        out: folder to write; it must be new or empty.
        n_patients: training patients, 1 to 60,000; four more make the test set.
        seed: at least 0.
        processes: number of processes; each uses one BLAS thread.
        progress: called with (patients done, number of patients).
        profile: ``small`` has few and short recordings per patient, ``competition`` as many
            and as long ones as the competition.
        controls: negative controls, see ``CONTROLS``.
        n_signals: number of patients with recordings, the first ones; default: all.

    Returns:
        The folder, which contains ``train.csv``, ``train_eegs/``, ``train_spectrograms/``,
        ``test.csv``, ``test_eegs/``, ``test_spectrograms/``, ``sample_submission.csv``,
        ``truth.parquet`` (by ``eeg_id`` and ``eeg_sub_id``: the six true odds of a vote for
        the row's own tier and for every tier, and the features that experts judged) and
        ``simulation.json`` (how it was simulated). If not all patients have signals,
        ``train.csv`` lists only the label rows of those who have, and ``labels.csv`` lists
        all. Without signals there are only ``labels.csv``, ``truth.parquet`` and
        ``simulation.json``.

    Raises:
        DataError: if a number is out of range, a name is unknown, or ``out`` is neither new
            nor an empty folder, or is a mount point.
        ResourceError: if a process ended early.
    """
    out = Path(out)
    n_signals = n_patients if n_signals is None else n_signals
    names = frozenset(controls)
    _check_numbers(n_patients, n_signals, seed, processes)
    _check_names(profile, sorted(names))
    _check_place(out)
    cohort = Cohort(seed, profile, names)
    # A folder cannot take the place of a link.
    place = out.resolve()
    label = f"{place.name}-"
    remove_leftovers(place.parent, label)
    with whole_folder(place, label=label) as folder:
        tasks = _tasks(folder, cohort, n_patients, n_signals)
        if n_signals:
            for split in SPLITS:
                (folder / f"{split}_eegs").mkdir()
                (folder / f"{split}_spectrograms").mkdir()
        _write_tables(folder, _run(tasks, processes, progress), n_patients, n_signals)
        _write_manifest(folder, cohort, n_patients, n_signals)
    return out


def _check_numbers(n_patients: int, n_signals: int, seed: int, processes: int) -> None:
    if not 1 <= n_patients <= MAX_PATIENTS:
        raise DataError(f"the number of patients must be 1 to {MAX_PATIENTS}", got=n_patients)
    if not 0 <= n_signals <= n_patients:
        raise DataError(
            f"the number of patients with recordings must be 0 to {n_patients}", got=n_signals
        )
    if seed < 0:
        raise DataError("the seed must be at least 0", got=seed)
    if processes < 1:
        raise DataError("the number of processes must be at least 1", got=processes)


def _check_names(profile: str, controls: list[Control]) -> None:
    if profile not in PROFILE_NAMES:
        raise DataError(f"the profile must be one of {', '.join(PROFILE_NAMES)}", got=profile)
    for name in controls:
        if name not in CONTROLS:
            raise DataError(f"a control must be one of {', '.join(CONTROLS)}", got=name)


def _check_place(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise DataError("the output must be a folder", got="a file", where=out)
    if out.resolve().is_mount():
        raise DataError(
            "the output folder must not be a mount point",
            where=out,
            fix="Give a folder below it.",
        )
    if out.is_dir() and any(out.iterdir()):
        raise DataError(
            "the output folder must be new or empty",
            got=f"a folder with {counted(sum(1 for _ in out.iterdir()), 'file')}",
            where=out,
            fix="Choose another --out, or delete this folder first.",
        )


Task = tuple[Path, Cohort, str, int, bool]
"""Folder, cohort, split, number of the patient, whether it has signals."""


def _tasks(folder: Path, cohort: Cohort, n_patients: int, n_signals: int) -> list[Task]:
    """The training patients, then those of the test set."""
    tasks = [(folder, cohort, "train", n, n < n_signals) for n in range(n_patients)]
    n_test = N_TEST if n_signals else 0
    return tasks + [(folder, cohort, "test", n, True) for n in range(n_test)]


def _run(tasks: list[Task], processes: int, progress: Progress | None) -> list[list[RecordingRows]]:
    """The rows of all patients, in the order of ``tasks``."""
    tables: list[list[RecordingRows]] = [[] for _ in tasks]
    for done, (position, rows) in enumerate(_completed(tasks, processes), start=1):
        tables[position] = rows
        if progress is not None:
            progress(done, len(tasks))
    return tables


def _completed(tasks: list[Task], processes: int) -> Iterator[tuple[int, list[RecordingRows]]]:
    if processes == 1:
        yield from ((position, _write_patient(task)) for position, task in enumerate(tasks))
        return
    with WorkerPool(min(processes, len(tasks))) as pool:
        try:
            futures = {pool.submit(_write_patient, task): n for n, task in enumerate(tasks)}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise ResourceError(
                "a process of the simulation must not end early",
                got="one that did",
                fix="Use fewer --processes; one may have run out of memory.",
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write_patient(task: Task) -> list[RecordingRows]:
    """Simulate one patient, write its files and return its rows by recording."""
    folder, cohort, split, index, with_signals = task
    with threadpool_limits(1):
        judged = cohort.patient(split, index)
        rows = cohort.rows(split, index, judged)
        if not with_signals:
            return rows
        electrodes = cohort.electrodes(split, index)
        for position, (one, (labels, _)) in enumerate(zip(judged, rows, strict=True)):
            recording = render(one.plan, cohort.signals(split, index, position), electrodes)
            _write_recording(folder, split, recording, labels)
    return rows


def _write_recording(
    folder: Path, split: str, recording: Recording, labels: list[dict[str, Any]]
) -> None:
    test = split == "test"
    name = f"{labels[0]['spectrogram_id']}.parquet"
    write_spectrogram(
        folder / f"{split}_spectrograms" / name,
        recording.spectrogram[: SPECTROGRAM_WINDOW_ROWS if test else None],
        np.int16 if test else np.int64,
    )
    eeg_ids = list(dict.fromkeys(row["eeg_id"] for row in labels))
    for eeg_id, eeg in zip(eeg_ids, recording.eegs, strict=True):
        path = folder / f"{split}_eegs" / f"{eeg_id}.parquet"
        write_eeg(path, eeg[: EEG_WINDOW_SAMPLES if test else None])


def _write_tables(
    folder: Path, rows: list[list[RecordingRows]], n_patients: int, n_signals: int
) -> None:
    """Labels and truth of all patients: the training set's, then the test set's."""
    train, test = rows[:n_patients], rows[n_patients:]
    write_parquet(truth_of(chain.from_iterable(train)), folder / TRUTH_FILE)
    if n_signals:
        labels_of(chain.from_iterable(train[:n_signals])).to_csv(folder / "train.csv", index=False)
        _write_test_tables(folder, labels_of(chain.from_iterable(test)))
    if n_signals < n_patients:
        labels_of(chain.from_iterable(train)).to_csv(folder / LABEL_TABLE_FILE, index=False)


def _write_test_tables(folder: Path, labels: pd.DataFrame) -> None:
    test = labels[["spectrogram_id", "eeg_id", "patient_id"]]
    test.to_csv(folder / "test.csv", index=False)
    submission = test[["eeg_id"]].assign(**dict.fromkeys(PROBABILITY_COLUMNS, 1 / N_CLASSES))
    submission.to_csv(folder / "sample_submission.csv", index=False)


def _write_manifest(folder: Path, cohort: Cohort, n_patients: int, n_signals: int) -> None:
    manifest = {
        "version": __version__,
        "seed": cohort.seed,
        "profile": cohort.profile,
        "patients": n_patients,
        "signals": n_signals,
        "controls": sorted(cohort.controls),
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
