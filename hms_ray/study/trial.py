"""One trial of a study as stored in its folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd

from hms_ray.config.experiment import Experiment
from hms_ray.config.former_names import with_new_names
from hms_ray.config.loading import load_space
from hms_ray.config.space import Objective, ResourcesConfig
from hms_ray.errors import PredictionError, StudyError
from hms_ray.evaluate.metric import RECALIBRATED_NAMES
from hms_ray.evaluate.oof import read_oof
from hms_ray.storage.atomic import IfExists, keep_nothing, whole_folder
from hms_ray.storage.faults import make_folder, storage_errors
from hms_ray.storage.structured_files import json_text, read_json, unreadable_file, yaml_text

State = Literal["complete", "pruned", "diverged", "failed", "stopped"]
"""How a trial ended. ``pruned``: stopped between folds by the study's rule. ``diverged``: its
loss was no longer finite. ``stopped``: by ``hms-ray stop``."""
PRUNED: Final = "pruned"
DIVERGED: Final = "diverged"
STOPPED: Final = "stopped"
OOF_FILE: Final = "oof.parquet"
_FIX: Final = "Move the trial's folder away; its folds stay in the fold store."


@dataclass(frozen=True)
class StoredTrial:
    """One trial as stored in its folder.

    Attributes:
        number: Optuna's number, also the name of the folder.
        point: dotted path -> value or label, as searched.
        scores: ``kl_all``, ``kl_4``, ``kl_10``; None if there are no such rows; empty if
            the trial is not complete.
        keys: fold -> cache key.
        reused: folds reused from the fold store.
        optimistic: whether checkpoints were chosen on the scored rows.
        fold_minutes: training time of its folds, whenever they were trained, including
            stages reused from the fold store.
        saved_minutes: training time of the reused stages.
        reason: why it is not complete; None if it is.
        path: its folder.
        state: how it ended.
        estimate: of a pruned trial, the score that it would probably have reached.
        n_folds: of a pruned trial, folds of the study.
        recalibrated: ``scores`` after nested recalibration, see ``recalibrated_scores``; empty if
            the trial is not complete or an earlier version wrote it.
    """

    number: int
    point: dict[str, Any]
    scores: dict[str, float | None]
    keys: dict[int, str]
    reused: tuple[int, ...]
    optimistic: bool
    fold_minutes: float
    saved_minutes: float
    reason: str | None
    path: Path
    state: State = "complete"
    estimate: float | None = None
    n_folds: int | None = None
    recalibrated: dict[str, float | None] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether all folds were trained and scored."""
        return self.reason is None

    @property
    def end_text(self) -> str:
        """How it ended, with the reason, which is enough for a stopped trial."""
        if self.reason is None or self.state == STOPPED:
            return self.reason or self.state
        return f"{self.state}: {self.reason}"

    @property
    def saved_folds_minutes(self) -> tuple[int, float]:
        """Folds that were not trained because the trial was pruned, and about their minutes."""
        if self.state != PRUNED or not self.keys or self.n_folds is None:
            return 0, 0.0
        n_saved = self.n_folds - len(self.keys)
        return n_saved, self.fold_minutes / len(self.keys) * n_saved

    @property
    def experiment(self) -> Experiment:
        """What was trained."""
        return load_space(self.path / "experiment.yaml", stored=True).experiment

    def leaderboard_record(self, tied: bool) -> dict[str, Any]:
        """The trial's row of ``report.leaderboard``; ``tied``: it is a tie with the best one."""
        return {
            "trial": f"{self.number:04d}",
            "state": self.state,
            "optimistic": self.optimistic,
            "tied": tied,
            "values": self.point,
            "fold_minutes": self.fold_minutes if self.keys else None,
            "saved_minutes": self.saved_minutes if self.keys else None,
            "estimate": self.estimate,
            "reused_folds": len(self.reused),
            "n_folds": len(self.keys),
            **self.scores,
            **{name: self.recalibrated.get(of) for of, name in RECALIBRATED_NAMES.items()},
        }

    def oof(self, rows: pd.DataFrame | None = None) -> pd.DataFrame:
        """Out-of-fold predictions; if ``rows`` are given, in their order and checked.

        Raises:
            StudyError: if they are missing, damaged or do not match the rows.
        """
        return read_trial_oof(self.path, rows)


def best_first(trials: Iterable[StoredTrial], objective: Objective) -> list[StoredTrial]:
    """The finished trials, best objective first; equal scores by number."""

    def rank(trial: StoredTrial) -> tuple[float, int]:
        score = trial.scores[objective]
        return (float("inf") if score is None else score, trial.number)

    return sorted((trial for trial in trials if trial.finished), key=rank)


def saved_by_pruning(trials: Iterable[StoredTrial]) -> tuple[int, int, float]:
    """Pruned trials, the folds that they did not train, and about their minutes of training."""
    saved = [trial.saved_folds_minutes for trial in trials if trial.state == PRUNED]
    return len(saved), sum(folds for folds, _ in saved), sum(minutes for _, minutes in saved)


def read_trial_oof(path: Path, rows: pd.DataFrame | None = None) -> pd.DataFrame:
    """The predictions in a trial's folder; see ``StoredTrial.oof``."""
    try:
        return read_oof(path / OOF_FILE, rows)
    except PredictionError as error:
        raise StudyError(error.rule, got=error.got, where=error.where, fix=_FIX) from None


def read_trial(path: Path) -> StoredTrial | None:
    """The trial in a folder; None if it has no result.

    Raises:
        StudyError: if ``result.json`` is damaged.
    """
    file = path / "result.json"
    if not file.is_file():
        return None
    data = read_json(file, dict, _FIX)
    try:
        return StoredTrial(
            number=data["number"],
            point=with_new_names(data["point"]),
            scores=data["scores"],
            keys={int(fold): key for fold, key in data["keys"].items()},
            reused=tuple(data["reused"]),
            optimistic=data["optimistic"],
            fold_minutes=data["fold_minutes"],
            saved_minutes=data["saved_minutes"],
            reason=data["reason"],
            path=path,
            state=data.get("state", "complete" if data["reason"] is None else "failed"),
            estimate=data.get("estimate"),
            n_folds=data.get("n_folds"),
            recalibrated=dict(data.get("recalibrated") or {}),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise unreadable_file(file, error, _FIX) from None


def has_finished(path: Path) -> bool:
    """Whether the folder of a trial holds the result of a finished one."""
    try:
        trial = read_trial(path)
    except StudyError:
        return False
    return trial is not None and trial.finished


@contextmanager
def trial_draft(
    path: Path,
    experiment: Experiment,
    resources: ResourcesConfig,
    result: Mapping[str, Any],
    if_exists: IfExists = "replace",
) -> Iterator[Path]:
    """A folder to write a trial's other files into; it appears as a whole or not at all.

    Args:
        path: the trial's folder.
        experiment: what was trained.
        resources: of the study; written beside the experiment, so that ``train`` with that
            file gives its folds the same cache keys.
        result: content of ``result.json``, written last; a failure never replaces the result
            of a finished trial.
        if_exists: ``keep`` leaves whatever another process wrote.

    Raises:
        StorageError: if it cannot be written; nothing of it is left then.
    """
    # An existing folder is of the same trial, written by a process that was lost since.
    failed = result["reason"] is not None
    keep_if = has_finished if failed else keep_nothing
    study = path.parents[1]
    make_folder(path.parent, study)
    with (
        storage_errors(study),
        whole_folder(path, if_exists=if_exists, keep_if=keep_if) as draft,
    ):
        described = {
            "experiment": experiment.model_dump(mode="json"),
            "resources": resources.model_dump(mode="json"),
        }
        (draft / "experiment.yaml").write_text(yaml_text(described), encoding="utf-8")
        yield draft
        (draft / "result.json").write_text(json_text(result), encoding="utf-8")
