"""``hms-ray submit`` of a study or a trial: its fold models on new recordings, as a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from hms_ray.competition.rows import ROW_UNIT
from hms_ray.competition.schema import PROBABILITY_COLUMNS
from hms_ray.display.live import bar
from hms_ray.evaluate.oof import OPTIMISTIC
from hms_ray.predict.files import require_output_file, write_predictions, write_submission
from hms_ray.predict.inference import predict_all, require_device
from hms_ray.predict.recordings import recordings_of_rows
from hms_ray.predict.test_set import eegs_to_submit, predict_test_set
from hms_ray.predict.trial import ModelChoice, TrialModels, read_models
from hms_ray.study.folder import StudyFolder
from hms_ray.study.seeds import TrialTarget
from hms_ray.study.trial import StoredTrial
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
        columns: names of columns in these files, see ``blend.column_names``.
        renormalise: divide rows of these files by their sums, if these are off by rounding.
        pack_dir: folder of packs; default: ``packed`` in the competition folder.
        device: ``cpu`` or ``cuda``; default: cuda if available.
        threads: torch threads.
        trust_code: run the code of models from elsewhere.
        models: of a trial, or of each member of a blend.
    """

    data_dir: Path
    results: Path = Path("results")
    out: Path | None = None
    train_rows: bool = False
    predictions: Sequence[str] = ()
    columns: Sequence[str] = ()
    renormalise: bool = False
    pack_dir: Path | None = None
    device: str | None = None
    threads: int = 1
    trust_code: bool = False
    models: ModelChoice = "folds"


def submit_trial(target: TrialTarget, options: SubmitOptions) -> str:
    """Writes the mean of the predictions of a trial's models.

    Args:
        target: the trial.
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
    trial, keys = target.models()
    name, trust, choice = target.name(trial), options.trust_code, options.models
    models = read_models(name, keys, options.results, choice, trust_code=trust)
    if options.train_rows:
        n_rows, notes = _predict_train_rows(target.study, trial, models, options, out)
        return "\n".join([*notes, written_line(out, n_rows, models)])
    return submit_models(models, options, out)


def submit_models(models: TrialModels, options: SubmitOptions, out: Path) -> str:
    """Writes the submission of one trial's models; returns the lines to print."""
    eeg_ids = eegs_to_submit(options.data_dir)
    found = predict_test_set(
        [models],
        eeg_ids,
        options.data_dir,
        pack_dir=options.pack_dir,
        device=options.device,
        threads=options.threads,
    )
    write_submission(out, found.submissions[models.name], eeg_ids)
    return "\n".join([*found.notes, written_line(out, len(eeg_ids), models), found.rate])


def written_line(out: Path, n_rows: int, models: TrialModels) -> str:
    """What was written, and by which models."""
    return f"{out}: {counted(n_rows, 'row')}, mean of {models.text} of {models.name}"


def _predict_train_rows(
    folder: StudyFolder, trial: StoredTrial, models: TrialModels, options: SubmitOptions, out: Path
) -> tuple[int, tuple[str, ...]]:
    """Writes predictions of the rows of ``train.csv``; returns their number and notes."""
    require_device(options.device, options.threads)
    models.require_code()
    study_rows, held_out = folder.rows(), _held_out_patients(folder)
    # Rows are those of the study; a stored fold may come from another one.
    unit, window = trial.experiment.data.unit, trial.experiment.data.window
    recordings = recordings_of_rows(
        options.data_dir,
        [models.experiment.joint_input],
        unit,
        window,
        without=held_out,
        pack_dir=options.pack_dir,
        bars=bar,
    )
    predicted, notes = predict_all([models], recordings, options.device, options.threads)
    rows = recordings.rows
    warning = _training_patients_warning(rows, study_rows)
    if held_out:
        patients = counted(len(held_out), "held-out patient")
        notes += (f"{patients} skipped; score them with: hms-ray holdout {folder.name}",)
    # Models that were trained on some of the rows make the table optimistic.
    table = rows[["row_id", "eeg_id", "patient_id"]].reset_index(drop=True)
    table.attrs = {ROW_UNIT: unit, **({OPTIMISTIC: True} if warning else {})}
    table[list(PROBABILITY_COLUMNS)] = predicted[models.name]
    write_predictions(out, table)
    return len(table), (*notes, *warning)


def _held_out_patients(folder: StudyFolder) -> list[int]:
    rows = folder.held_out_rows()
    return [] if rows is None else rows["patient_id"].unique().tolist()


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
