"""Images of a finished trial in its TensorBoard run: rows with shares, confusion, reliability.

They need the trial's predictions, and those of inputs also the study's packs. What cannot be
made is skipped, with a note of the reason.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.schema import N_CLASSES, TARGET_COLUMNS
from hms_ray.dataset.hold_out import PACK_DIR
from hms_ray.dataset.prepare import PackRef, Prepared
from hms_ray.dataset.sources import experiment_sources, source_key
from hms_ray.display.event_file import framed
from hms_ray.display.trial_pictures import (
    ShownRow,
    batch_picture,
    confusion_picture,
    reliability_picture,
    rows_picture,
)
from hms_ray.errors import HmsRayError, PackError, one_line
from hms_ray.evaluate.confusion import share_confusion
from hms_ray.evaluate.metric import OBJECTIVES, SCORE_NAMES, Array, kl_rows
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.evaluate.reliability import reliability
from hms_ray.pack.build import default_pack_dir
from hms_ray.pack.layout import read_pack_manifest
from hms_ray.report.rows_recordings import data_folder
from hms_ray.storage.atomic import whole_file
from hms_ray.storage.faults import make_folder
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.folder import ROWS_FILE, StudyFolder
from hms_ray.study.trial import StoredTrial
from hms_ray.text import counted, shortened_list

if TYPE_CHECKING:
    from hms_ray.train.example_images import ExampleImages

FILE_NAME: Final = "events.out.tfevents.9999999999.images"
"""TensorBoard reads the files of a run by name: this one follows those of the training."""
TAG: Final = "images"
PER_CLASS: Final = 3
N_WORST: Final = 12
N_AUGMENTED: Final = 16

Rows = NDArray[np.int64]


def write_trial_images(
    folder: StudyFolder, trial: StoredTrial, run: Path, results: Path, pack_dir: Path | None = None
) -> list[str]:
    """Writes the images of a finished trial into its TensorBoard run.

    Args:
        folder: the study.
        trial: a finished one of it.
        run: folder of the trial's run; made if missing.
        results: folder of the fold store.
        pack_dir: folder of packs. Default: that of the study.

    Returns:
        Notes about what could not be made; one line each.

    Raises:
        StudyError: if the study's rows or the trial's predictions cannot be read.
    """
    pictures, notes = trial_pictures(folder, trial, results, pack_dir)
    make_folder(run, folder.path)
    with whole_file(run / FILE_NAME, fsync=False) as draft:
        draft.write_bytes(_framed(pictures))
    return notes


def trial_pictures(
    folder: StudyFolder, trial: StoredTrial, results: Path, pack_dir: Path | None = None
) -> tuple[dict[str, bytes], list[str]]:
    """The images of a finished trial, name -> PNG, and notes; see ``write_trial_images``."""
    rows = folder.rows()
    targets = rows[list(TARGET_COLUMNS)].to_numpy(np.float64)
    predicted = probabilities_of(trial.oof(rows))
    loss = kl_rows(targets, predicted)
    counted_rows = np.flatnonzero(rows["total_votes"] >= OBJECTIVES[folder.objective])
    chosen = {
        "rows by class": rows_by_class(rows),
        "rows of largest loss": counted_rows[np.argsort(-loss[counted_rows], kind="stable")][
            :N_WORST
        ],
    }
    inputs = _Inputs(folder, trial, rows, results, pack_dir)
    places = np.unique(np.concatenate(list(chosen.values())))
    images = inputs.of_rows(places[places >= 0])
    name = f"trial {trial.number:04d} of {folder.name}"
    texts = {
        "rows by class": f"{name}: the same validation rows for every trial",
        "rows of largest loss": f"{name}: of the rows that {SCORE_NAMES[folder.objective]} counts",
    }
    made = {}
    for tag, places in chosen.items():
        shown = [
            None if place < 0 else _shown(rows, place, targets, predicted, loss, images)
            for place in places
        ]
        if shown:
            made[tag] = rows_picture(tag.capitalize(), texts[tag], shown)
    if (batch := inputs.augmented()) is not None:
        made["augmented batch"] = batch_picture("Augmented batch", f"{name}, {batch[0]}", *batch[1])
    made |= _statistics(name, rows, targets, predicted)
    return made, inputs.notes


def rows_by_class(rows: pd.DataFrame) -> Rows:
    """Rows that show each class best; they depend on the study's rows alone.

    Of the rows whose largest share is of a class, those with most votes, then with the largest
    share; as many patients as possible.

    Args:
        rows: columns ``patient_id``, ``total_votes`` and targets.

    Returns:
        (6 x ``PER_CLASS``,) positions, class by class; -1 where there are fewer.
    """
    targets = rows[list(TARGET_COLUMNS)].to_numpy(np.float64)
    patients, votes = rows["patient_id"].to_numpy(), rows["total_votes"].to_numpy()
    chosen = np.full((N_CLASSES, PER_CLASS), -1, dtype=np.int64)
    for number, places in enumerate(chosen):
        own = np.flatnonzero(targets.argmax(axis=1) == number)
        ordered = own[np.lexsort((own, -targets[own, number], -votes[own]))]
        # How many rows of its patient stand before a row: those of new patients come first.
        repeats = pd.Series(patients[ordered]).groupby(patients[ordered]).cumcount().to_numpy()
        found = ordered[np.argsort(repeats, kind="stable")][:PER_CLASS]
        places[: len(found)] = found
    return chosen.ravel()


def _shown(
    rows: pd.DataFrame,
    place: int,
    targets: Array,
    predicted: Array,
    loss: Array,
    images: Mapping[int, NDArray[np.float32]],
) -> ShownRow:
    row = rows.iloc[place]
    votes = counted(int(row["total_votes"]), "vote")
    title = f"{row['row_id']}, fold {row['fold']}, {votes}, KL {loss[place]:.2f}"
    return ShownRow(title, targets[place], predicted[place], images.get(int(place)))


def _statistics(
    name: str, rows: pd.DataFrame, targets: Array, predicted: Array
) -> dict[str, bytes]:
    """Confusion and reliability on the rows of most votes, whose shares are least noisy."""
    many = (rows["total_votes"] >= OBJECTIVES["kl_10"]).to_numpy()
    which, kept = (">= 10 votes", many) if many.any() else ("any votes", np.full(len(rows), True))
    note = f"{name}: {counted(int(kept.sum()), 'row')} with {which}"
    confusion = share_confusion(targets[kept], predicted[kept])
    found = reliability(targets[kept], predicted[kept])
    return {
        "confusion of vote shares": confusion_picture(
            "Confusion of vote shares", note, confusion.shares, confusion.ideal
        ),
        "reliability": reliability_picture(
            "Reliability by class",
            f"{note}; numbers are rows of a bin; mean ECE {found.mean_ece:.3f}",
            *(found.predicted, found.true, found.counts, found.ece),
        ),
    }


class _Inputs:
    """Images that the models of a trial see; without its packs or folds there are none.

    Attributes:
        notes: why there are none.
    """

    def __init__(
        self,
        folder: StudyFolder,
        trial: StoredTrial,
        rows: pd.DataFrame,
        results: Path,
        pack_dir: Path | None,
    ) -> None:
        self._trial, self._rows, self._folder = trial, rows, folder
        self._store, self.notes = FoldStore(results), list[str]()
        self._made: dict[int, ExampleImages | None] = {}
        self._prepared: Prepared | None = None
        self._experiment = trial.experiment
        try:
            packs = self._packs(pack_dir or _pack_dir(folder, rows))
            self._prepared = Prepared(
                folder.path / ROWS_FILE, packs, "", "", int(rows["fold"].nunique())
            )
        except HmsRayError as error:
            self.notes.append(f"no images of inputs: {one_line(error)}")

    def _packs(self, pack_dir: Path | None) -> dict[str, PackRef]:
        """``source_key`` -> pack of this study, which its fingerprint identifies."""
        known = self._folder.identity["data"]["packs"]
        keys = {source_key(*source) for source in experiment_sources(self._experiment)}
        found: dict[str, PackRef] = {}
        for key in keys:
            places = () if pack_dir is None else pack_dir.glob(f"{key.split('-')[0]}-*")
            for path in places:
                if _is_pack(path, known.get(key)):
                    found[key] = PackRef(path, known[key])
        if missing := sorted(keys - found.keys()):
            raise PackError(
                "the study's packs must exist",
                got=f"none of {shortened_list(missing)}",
                where=pack_dir or "an unknown folder",
                fix="Name their folder with --pack-dir DIR, or make them again: hms-ray pack",
            )
        return found

    def of_rows(self, places: Rows) -> dict[int, NDArray[np.float32]]:
        """Position of a row -> its (H, W) image, made with the constants of its fold."""
        found: dict[int, NDArray[np.float32]] = {}
        folds = self._rows["fold"].to_numpy()
        for fold in np.unique(folds[places]).tolist():
            if (maker := self._maker(fold)) is not None:
                own = places[folds[places] == fold]
                found |= dict(zip(own.tolist(), maker.of_rows(own), strict=True))
        return found

    def augmented(self) -> tuple[str, tuple[Any, Any]] | None:
        """A line about a training batch, and its images and targets."""
        for fold in sorted(self._trial.keys):
            if (maker := self._maker(fold)) is not None:
                batch = maker.of_batch(N_AUGMENTED)
                kind = "" if batch.augmented else "; the experiment has no augmentation"
                text = f"fold {fold}, first training batch of stage {batch.stage}{kind}"
                return text, (batch.images, batch.targets)
        return None

    def _maker(self, fold: int) -> ExampleImages | None:
        if fold not in self._made:
            self._made[fold] = None
            if self._prepared is not None and fold in self._trial.keys:
                try:
                    self._made[fold] = self._opened(self._prepared, fold)
                except HmsRayError as error:
                    self.notes.append(f"no images of inputs of fold {fold}: {one_line(error)}")
        return self._made[fold]

    def _opened(self, prepared: Prepared, fold: int) -> ExampleImages:
        # They import torch.
        from hms_ray.experiment.fold_data import fold_data
        from hms_ray.train.example_images import ExampleImages

        data = fold_data(self._experiment, prepared, fold, self._rows)
        record = self._store.record(self._trial.keys[fold])
        return ExampleImages(self._experiment, data, fold, record["normalisation"])


def _pack_dir(folder: StudyFolder, rows: pd.DataFrame) -> Path | None:
    if recorded := rows.attrs.get(PACK_DIR):
        return Path(recorded)
    data = data_folder(folder, rows, None)
    return None if data is None else default_pack_dir(data)


def _is_pack(path: Path, fingerprint: str | None) -> bool:
    try:
        return fingerprint is not None and read_pack_manifest(path)["fingerprint"] == fingerprint
    except PackError:
        return False


def _framed(pictures: Mapping[str, bytes]) -> bytes:
    """An event file with images."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    now = time.time()
    values = [
        Summary.Value(
            tag=f"{TAG}/{name}",
            image=Summary.Image(
                width=size[0], height=size[1], colorspace=4, encoded_image_string=content
            ),
        )
        for name, content in pictures.items()
        for size in (_png_size(content),)
    ]
    events: Sequence[Event] = [
        Event(wall_time=now, file_version="brain.Event:2"),
        *(Event(wall_time=now, step=0, summary=Summary(value=[value])) for value in values),
    ]
    return framed(events)


def _png_size(content: bytes) -> tuple[int, int]:
    """Width and height, which a PNG file has in its first chunk."""
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
