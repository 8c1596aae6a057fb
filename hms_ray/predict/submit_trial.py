"""``hms-ray submit`` of a study or a trial: its fold models on new recordings, as a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from hms_ray.competition.rows import ROW_UNIT
from hms_ray.competition.schema import PROBABILITY_COLUMNS
from hms_ray.evaluate.oof import OPTIMISTIC
from hms_ray.predict.files import require_output_file, write_predictions, write_submission
from hms_ray.predict.inference import predict_all, require_device
from hms_ray.predict.recordings import read_test_rows, recordings_of_rows, recordings_of_test
from hms_ray.predict.submission import make_submission, submission_ids
from hms_ray.predict.trial import read_models
from hms_ray.report.live import bar
from hms_ray.study.folder import StudyFolder
from hms_ray.text import counted

SUBMISSION: Final = Path("submission.csv")
PREDICTIONS: Final = Path("predictions.csv")


@dataclass(frozen=True, kw_only=True)
class SubmitOptions:
    """Options of ``hms-ray submit``.

    Attributes:
        data_dir: competition folder.
        results: folder of all studies and the fold store.
        out: file to write, ``.csv`` or ``.parquet``; default: ``submission.csv``, with
            ``train_rows`` ``predictions.csv``.
        train_rows: predict the rows of ``train.csv``, with the study's row unit, instead of
            the recordings of ``test.csv``; for a study or trial only.
        predictions: ``NAME=FILE``, predictions of the test recordings by a member; for a
            blend only.
        pack_dir: folder of packs; default: ``packed`` in the competition folder.
        device: ``cpu`` or ``cuda``; default: cuda if available.
        threads: torch threads.
    """

    data_dir: Path
    results: Path = Path("results")
    out: Path | None = None
    train_rows: bool = False
    predictions: Sequence[str] = ()
    pack_dir: Path | None = None
    device: str | None = None
    threads: int = 1


def submit_trial(folder: StudyFolder, number: int | None, options: SubmitOptions) -> str:
    """Writes the mean of the predictions of a trial's fold models.

    Args:
        folder: the study.
        number: of the trial; default: the best finished one.
        options: of the command. With ``train_rows`` the table has ``row_id``, ``eeg_id``,
            ``patient_id`` and six probabilities, and is no submission.

    Returns:
        Lines to print.

    Raises:
        ConfigError: if the file has another ending or cannot be written.
        StudyError: if a trial or fold is missing or damaged.
        DataError: see ``recordings_of_test`` and ``recordings_of_rows``.
    """
    out = options.out or (PREDICTIONS if options.train_rows else SUBMISSION)
    require_output_file(out)
    trial = folder.finished_trial(number)
    models = read_models(f"{folder.name} {trial.number:04d}", trial.keys, options.results)
    require_device(options.device, options.threads)
    inputs, place = [models.experiment.input], options.pack_dir
    if options.train_rows:
        study_rows = folder.rows()
        # Rows are those of the study; a stored fold may come from another one.
        unit, window = trial.experiment.data.unit, trial.experiment.data.window
        recordings = recordings_of_rows(
            options.data_dir, inputs, unit, window, pack_dir=place, bars=bar
        )
    else:
        test_ids = read_test_rows(options.data_dir)["eeg_id"].tolist()
        # Read before the recordings, which may have to be packed.
        eeg_ids = submission_ids(options.data_dir, test_ids)
        recordings = recordings_of_test(options.data_dir, inputs, pack_dir=place, bars=bar)
    predicted, notes = predict_all([models], recordings, options.device, options.threads)
    rows, probabilities = recordings.rows, predicted[models.name]
    if options.train_rows:
        warning = _training_patients_warning(rows, study_rows)
        notes += warning
        # Models that were trained on some of the rows make the table optimistic.
        table = rows[["row_id", "eeg_id", "patient_id"]].reset_index(drop=True)
        table.attrs = {ROW_UNIT: unit, **({OPTIMISTIC: True} if warning else {})}
        table[list(PROBABILITY_COLUMNS)] = probabilities
        write_predictions(out, table)
    else:
        table = make_submission(eeg_ids, rows["eeg_id"], probabilities)
        write_submission(out, table, eeg_ids)
    folds, n_rows = counted(len(models.folds), "fold"), counted(len(table), "row")
    return "\n".join([*notes, f"{out}: {n_rows}, mean of {folds} of {models.name}"])


def _training_patients_warning(rows: pd.DataFrame, study_rows: pd.DataFrame) -> tuple[str, ...]:
    """A warning if rows are of patients that the study has; else nothing."""
    n = int(rows["patient_id"].isin(study_rows["patient_id"]).sum())
    if not n:
        return ()
    warning = (
        f"{n:,} of {counted(len(rows), 'row')} are of patients in the study: some fold models "
        "were trained on them, so these are not out-of-fold predictions"
    )
    return (warning,)
