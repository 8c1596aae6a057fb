"""``hms-ray predict`` and ``hms-ray blend --apply``: a file, and what to say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hms_ray.competition.rows import ROW_UNIT, Unit
from hms_ray.competition.schema import PROBABILITY_COLUMNS
from hms_ray.evaluate.metric import Array
from hms_ray.evaluate.oof import OPTIMISTIC
from hms_ray.predict.files import require_place, write_predictions, write_submission
from hms_ray.predict.inference import predict_all, require_device
from hms_ray.predict.recordings import Recordings, recordings_of_rows, recordings_of_test
from hms_ray.predict.submission import make_submission, submission_ids
from hms_ray.predict.trial import TrialModels, chosen_trial, read_models, rows_of_study
from hms_ray.report.progress import bar
from hms_ray.report.text_table import WIDTH, wrapped
from hms_ray.study.folder import StudyFolder
from hms_ray.text import counted

SUBMISSION = Path("submission.csv")
PREDICTIONS = Path("predictions.csv")


@dataclass(frozen=True)
class Place:
    """Where models, recordings and packs are, and where models run.

    Attributes:
        data_dir: competition folder.
        results: folder of all studies and their store.
        pack_dir: where packs are kept; beside the data where absent.
        device: ``cpu`` or ``cuda``; the GPU where absent, if there is one.
        threads: torch threads.
    """

    data_dir: Path
    results: Path = Path("results")
    pack_dir: Path | None = None
    device: str | None = None
    threads: int = 1


def predict_study(
    study: str | Path,
    number: int | None,
    place: Place,
    out: Path | None = None,
    *,
    train_rows: bool = False,
) -> str:
    """Writes what a trial's fold models, averaged, say of new recordings.

    Args:
        study: name or folder of the study.
        number: of the trial; the best finished one where absent.
        place: data, models and device.
        out: ``.csv`` or ``.parquet``; ``submission.csv`` or, of training rows,
            ``predictions.csv`` where absent.
        train_rows: predict the rows of ``train.csv``, of the study's row unit, in place of
            the recordings of ``test.csv``. The table has ``row_id``, ``eeg_id``,
            ``patient_id`` and six probabilities, and is no submission.

    Returns:
        Lines to print, at most 80 columns wide but for the last line.

    Raises:
        ConfigError: for a file of another ending.
        StudyError: for a study, trial or fold that is not there, or is damaged.
        DataError: as of ``recordings_of_test`` and ``recordings_of_rows``.
    """
    out = out or (PREDICTIONS if train_rows else SUBMISSION)
    require_place(out)
    folder = StudyFolder.open(study, place.results)
    trial = chosen_trial(folder, number)
    models = read_models(f"{folder.name} {trial.number:04d}", trial.keys, place.results)
    require_device(place.device, place.threads)
    if train_rows:
        known = rows_of_study(folder)
        # Rows are what the study says they are; a store's fold may come from another one.
        data = trial.experiment.data
        recordings = recordings_of_rows(
            place.data_dir,
            [models.experiment.input],
            data.unit,
            data.window,
            pack_dir=place.pack_dir,
            bars=bar,
        )
        probabilities, notes = _predicted(models, recordings, place)
        seen = _seen_note(recordings.rows, known)
        table = _row_table(recordings.rows, probabilities, data.unit, seen=bool(seen))
        write_predictions(out, table)
        notes += seen
    else:
        recordings, eeg_ids = _test_set(models, place)
        probabilities, notes = _predicted(models, recordings, place)
        table = make_submission(eeg_ids, recordings.rows["eeg_id"], probabilities)
        write_submission(out, table, eeg_ids)
    folds = counted(len(models.folds), "fold")
    n_rows = counted(len(recordings.rows), "row")
    return lines_to_print(notes, f"{out}: {n_rows}, mean of {folds} of {models.name}")


def lines_to_print(notes: Sequence[str], result: str) -> str:
    """Notes, at most 80 columns wide, and the result in one line."""
    return "\n".join([*(line for note in notes for line in wrapped(note, WIDTH)), result])


def _seen_note(rows: pd.DataFrame, known: pd.DataFrame) -> tuple[str, ...]:
    """What to say of rows of the study's own patients."""
    n_seen = int(rows["patient_id"].isin(known["patient_id"]).sum())
    if not n_seen:
        return ()
    note = (
        f"{n_seen:,} of {counted(len(rows), 'row')} of patients that the study has: models "
        "trained on them predict them too, so these are no out-of-fold predictions"
    )
    return (note,)


def _test_set(models: TrialModels, place: Place) -> tuple[Recordings, list[int]]:
    inputs = [models.experiment.input]
    recordings = recordings_of_test(place.data_dir, inputs, pack_dir=place.pack_dir, bars=bar)
    return recordings, submission_ids(place.data_dir, recordings.rows["eeg_id"].tolist())


def _predicted(
    models: TrialModels, recordings: Recordings, place: Place
) -> tuple[Array, tuple[str, ...]]:
    predicted, notes = predict_all([models], recordings, place.device, place.threads, bar)
    return predicted[models.name], notes


def _row_table(rows: pd.DataFrame, probabilities: Array, unit: Unit, *, seen: bool) -> pd.DataFrame:
    """Predictions by row; where models were trained on some, a blend is to know it."""
    table = rows[["row_id", "eeg_id", "patient_id"]].reset_index(drop=True)
    table.attrs = {ROW_UNIT: unit, **({OPTIMISTIC: True} if seen else {})}
    table[list(PROBABILITY_COLUMNS)] = probabilities
    return table
