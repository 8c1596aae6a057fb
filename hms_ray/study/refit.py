"""Refits of a study's trials: what was trained on all rows, and whether on the hold-out too."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from hms_ray.errors import StudyError
from hms_ray.storage.folder_names import REFIT_FILE
from hms_ray.storage.structured_files import json_text, read_json, unreadable_file, write_text
from hms_ray.study.folder import StudyFolder
from hms_ray.text import command_line, counted

CLOSED_FILE: Final = "holdout_closed.json"
_FIX: Final = "Refit again: hms-ray refit"
_FIX_CLOSED: Final = "Restore it from a backup: it states that models were trained on the hold-out."


@dataclass(frozen=True, kw_only=True)
class Refit:
    """The refit of a trial, planned or trained.

    Attributes:
        date: of the command.
        epochs: of each stage, see ``experiment.refit.refit_epochs``.
        fold_epochs: fold -> epochs after which each of its stages was kept.
        folds: fold -> cache key, of the trial.
        keys: training seed -> cache key of the model on all rows.
        n_rows: rows that they are trained on.
        with_holdout: whether the hold-out is among these rows.
    """

    date: str
    epochs: tuple[float, ...]
    fold_epochs: Mapping[int, tuple[float, ...]]
    folds: Mapping[int, str]
    keys: Mapping[int, str]
    n_rows: int
    with_holdout: bool

    @property
    def text(self) -> str:
        """Models, rows and epochs, in one line."""
        ends = ", ".join(f"{end:g}" for end in self.epochs)
        rows = f"all {counted(self.n_rows, 'row')}{', hold-out included' * self.with_holdout}"
        return f"{counted(len(self.keys), 'model')} on {rows}; epochs by stage: {ends}"


def now() -> str:
    """The date and time, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_refit(trial: Path, refit: Refit) -> None:
    """Writes the refit of the trial in a folder; an earlier one is replaced."""
    write_text(trial / REFIT_FILE, json_text(asdict(refit)))


def read_refit(trial: Path) -> Refit | None:
    """The refit of the trial in a folder; None without one.

    Raises:
        StudyError: if its file is damaged.
    """
    file = trial / REFIT_FILE
    if not file.is_file():
        return None
    data = read_json(file, dict, _FIX)
    try:
        return Refit(
            date=str(data["date"]),
            epochs=tuple(data["epochs"]),
            fold_epochs={int(fold): tuple(ends) for fold, ends in data["fold_epochs"].items()},
            folds={int(fold): str(key) for fold, key in data["folds"].items()},
            keys={int(seed): str(key) for seed, key in data["keys"].items()},
            n_rows=int(data["n_rows"]),
            with_holdout=bool(data["with_holdout"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise unreadable_file(file, error, _FIX) from None


def find_refit(results: str | Path, keys: Collection[str], name: str) -> Refit:
    """The refit of the trial that has some fold models.

    Args:
        results: folder of all studies.
        keys: cache keys of the fold models; those of further seeds may be among them.
        name: of the models, for the message.

    Raises:
        StudyError: if no study has one, or a file is damaged.
    """
    for file in sorted(Path(results).glob(f"*/trials/*/{REFIT_FILE}")):
        found = read_refit(file.parent)
        if found is not None and set(found.folds.values()) <= set(keys):
            return found
    raise StudyError(
        "models on all rows must be trained before they are used",
        got="none",
        where=name,
        fix=f"Train them: {command_line('refit', 'STUDY', '--trial', 'N', '--data', 'DIR')}",
    )


def close_holdout(folder: StudyFolder, entry: Mapping[str, Any]) -> None:
    """Records that a study's hold-out is closed for good; the caller holds the lock."""
    write_text(folder.path / CLOSED_FILE, json_text([*closings(folder), dict(entry)]))


def closings(folder: StudyFolder) -> list[dict[str, Any]]:
    """Every time that a refit of the study was to be trained on the hold-out, oldest first.

    Raises:
        StudyError: if the record is damaged.
    """
    file = folder.path / CLOSED_FILE
    return read_json(file, list, _FIX_CLOSED) if file.is_file() else []


def closed_text(folder: StudyFolder) -> str | None:
    """By what a study's hold-out was closed first; None if it was not."""
    for entry in closings(folder)[:1]:
        when = str(entry["date"])[:16].replace("T", " ")
        return f"a refit of trial {int(entry['trial']):04d} with --with-holdout, {when} UTC"
    return None


def require_open_holdout(folder: StudyFolder) -> None:
    """Refuses to score the hold-out of a study whose models were trained on it.

    Raises:
        StudyError: if a refit was started with ``--with-holdout``.
    """
    if closed := closed_text(folder):
        raise StudyError(
            "a hold-out must not have been trained on",
            got=closed,
            where=folder.path / CLOSED_FILE,
            fix="Search again with other held-out patients, under another name: "
            "--set data.holdout_seed=1",
        )
