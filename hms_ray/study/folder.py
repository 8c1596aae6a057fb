"""A study's folder: what was searched, on which data, and what came of every trial."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

import pandas as pd

from hms_ray.competition.rows import ROW_UNIT
from hms_ray.config.experiment import Experiment
from hms_ray.config.loading import load_space, read_mapping
from hms_ray.config.space import Objective, Space
from hms_ray.config.validation import one_a_line
from hms_ray.dataset.prepare import Prepared
from hms_ray.errors import ConfigError, StudyError
from hms_ray.evaluate.oof import OPTIMISTIC, write_oof
from hms_ray.experiment.run import ExperimentResult
from hms_ray.report.leaderboard import leaderboard, write_csv
from hms_ray.storage.locks import StudyLock
from hms_ray.storage.structured_files import json_text, read_json, write_text
from hms_ray.study.identity import differences, study_identity
from hms_ray.study.new import (
    FORMAT,
    JOURNAL,
    ROWS_FILE,
    SPACE_FILE,
    STUDY_FILE,
    checked_name,
    is_vacant,
    write_new,
    write_space,
)
from hms_ray.study.ties import tied_with_best
from hms_ray.study.trial import StoredTrial, read_trial, trial_draft
from hms_ray.text import closest

MOST_DIFFERENCES = 5
TRIALS = "trials"


def study_names(results: str | Path) -> list[str]:
    """Names of all studies below a results folder, sorted."""
    return sorted(file.parent.name for file in Path(results).glob(f"*/{STUDY_FILE}"))


class StudyFolder:
    """The folder ``results/NAME`` of a study that exists.

    Args:
        path: its folder.

    Raises:
        StudyError: where it holds no study.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        file = self.path / STUDY_FILE
        if not file.exists():
            raise StudyError(
                "a study must exist before it is read", got=f"no {STUDY_FILE}", where=self.path
            )
        self._study = read_json(file, dict)
        if self._study.get("format") != FORMAT:
            raise StudyError(
                f"a study's folder must have format {FORMAT}",
                got=self._study.get("format"),
                where=self.path,
                fix="It was made with another version of hms_ray: use that, or another name.",
            )
        if not isinstance(self._study.get("identity"), dict):
            raise StudyError(f"{STUDY_FILE} must say what was searched", got="nothing", where=file)

    @classmethod
    def find(cls, study: str | Path, results: str | Path = "results") -> StudyFolder | None:
        """A study by its name below ``results`` or by its path; None if there is none.

        Raises:
            StudyError: if its ``study.json`` is damaged.
        """
        for path in (Path(results) / study, Path(study)):
            if (path / STUDY_FILE).is_file():
                return cls(path)
        return None

    @classmethod
    def open(cls, study: str | Path, results: str | Path = "results") -> StudyFolder:
        """A study by its name below ``results`` or by its path.

        Raises:
            StudyError: if there is none, naming the nearest, or it is damaged.
        """
        found = cls.find(study, results)
        if found is None:
            names = study_names(results)
            raise StudyError(
                "the study must exist",
                got=f"{study}{closest(Path(study).name, names)}",
                where=results,
                fix=None if names else "Run one first: hms-ray sweep",
            )
        return found

    @classmethod
    def create(
        cls, results: str | Path, name: str, space: Space, prepared: Prepared
    ) -> StudyFolder:
        """Makes a study's folder, or opens it to go on with the same study.

        More trials and other resources are the same study; another search space,
        objective, seed, world size or device class, other weights or other data are
        not. A study of which no trial has ended yet is made anew. One that is gone on
        with is not written to, for another command may run it (see ``keep_space``).

        Raises:
            StudyError: where the name is no folder's name, or the folder holds another
                study or other files. Nothing is written then.
            ModelError: where a weights file cannot be read.
        """
        path = Path(results) / checked_name(name)
        identity = study_identity(space, prepared)
        if _is_to_be_made(path, identity):
            path.mkdir(parents=True, exist_ok=True)
            with StudyLock(path):
                # Another command may have made it just now, or ended a trial of it.
                if _is_to_be_made(path, identity):
                    write_new(path, identity, space, prepared)
        folder = cls(path)
        folder._require_same(identity)
        return folder

    def _differences(self, identity: Mapping[str, Any]) -> list[str]:
        return differences(self._study["identity"], identity)

    def _require_same(self, identity: Mapping[str, Any]) -> None:
        changed = self._differences(identity)
        if changed:
            more = len(changed) - MOST_DIFFERENCES
            raise StudyError(
                "a study goes on with the space and the data it was made with",
                got="; ".join(changed[:MOST_DIFFERENCES])
                + (f"; and {more} more" if more > 0 else ""),
                where=self.path,
                fix="Give another name with --study: finished folds are shared by all studies.",
            )

    @property
    def name(self) -> str:
        """The study's name."""
        return self.path.resolve().name

    @property
    def journal(self) -> Path:
        """File of Optuna's journal."""
        return self.path / JOURNAL

    @property
    def scratch(self) -> Path:
        """Folder for Ray's own files; may be deleted between runs."""
        return self.path / ".ray"

    def space(self) -> Space:
        """The resolved search space.

        Raises:
            StudyError: if it was written by a version whose fields had other names.
        """
        try:
            return load_space(self.path / SPACE_FILE)
        except ConfigError as error:
            raise StudyError(
                "this version of hms_ray cannot read the study's search space",
                got=one_a_line(error)[0],
                where=self.path / SPACE_FILE,
                fix="Look at it with show and leaderboard, or sweep again under another name.",
            ) from None

    @property
    def objective(self) -> Objective:
        """The score that orders the trials, also of a study of an earlier version.

        Raises:
            StudyError: if the search space names none.
        """
        file = self.path / SPACE_FILE
        study = read_mapping(file).get("study")
        found = study.get("objective") if isinstance(study, dict) else None
        for objective in get_args(Objective):
            if objective == found:
                return cast("Objective", objective)
        raise StudyError("a study's search space must name its objective", got=found, where=file)

    def keep_space(self, space: Space) -> None:
        """Stores the space of the command that runs the study, which must hold the lock.

        Args:
            space: one that ``create`` took as this study's.
        """
        write_space(self.path, space)

    def rows(self) -> pd.DataFrame:
        """The study's training rows with votes, targets and folds."""
        return pd.read_parquet(self.path / ROWS_FILE)

    def trial_path(self, number: int) -> Path:
        """Folder of a trial, whether it exists or not."""
        return self.path / TRIALS / f"{number:04d}"

    def trial(self, number: int) -> StoredTrial | None:
        """A trial's result; None where it has none yet.

        Raises:
            StudyError: where its ``result.json`` is damaged.
        """
        return read_trial(self.trial_path(number))

    def trials(self) -> list[StoredTrial]:
        """All trials with a result, finished or failed, by number."""
        numbers = [int(path.name) for path in (self.path / TRIALS).glob("*") if path.name.isdigit()]
        found = [self.trial(number) for number in sorted(numbers)]
        return [trial for trial in found if trial is not None]

    def finished_trials(self) -> list[StoredTrial]:
        """Finished trials, best objective first; equal ones by number."""
        objective = self.objective

        def rank(trial: StoredTrial) -> tuple[float, int]:
            score = trial.scores[objective]
            return (float("inf") if score is None else score, trial.number)

        return sorted((trial for trial in self.trials() if trial.finished), key=rank)

    def write_trial(
        self,
        number: int,
        point: Mapping[str, Any],
        experiment: Experiment,
        result: ExperimentResult,
    ) -> None:
        """Stores a finished trial, all of it or nothing."""
        data = {
            "number": number,
            "point": dict(point),
            "scores": result.scores,
            "keys": result.keys,
            "reused": list(result.reused),
            "optimistic": result.optimistic,
            "fold_minutes": result.fold_minutes,
            "saved_minutes": result.saved_minutes,
            "reason": None,
        }
        with trial_draft(self.trial_path(number), experiment, data) as draft:
            oof = result.oof.copy()
            oof.attrs = {ROW_UNIT: experiment.data.unit}
            if result.optimistic:
                oof.attrs[OPTIMISTIC] = True
            write_oof(draft / "oof.parquet", oof)

    def write_failure(
        self,
        number: int,
        point: Mapping[str, Any],
        experiment: Experiment,
        reason: str,
        details: str = "",
    ) -> None:
        """Stores why a trial failed: one line, and all details in ``error.txt``.

        A result that is there stays: it was written before its process was lost.
        """
        data = {
            "number": number,
            "point": dict(point),
            "scores": {},
            "keys": {},
            "reused": [],
            "optimistic": False,
            "fold_minutes": 0.0,
            "saved_minutes": 0.0,
            "reason": reason,
        }
        done = self.trial(number)
        if done is not None and done.finished:
            return
        with trial_draft(self.trial_path(number), experiment, data) as draft:
            (draft / "error.txt").write_text(details or reason, encoding="utf-8")

    def leaderboard(self) -> pd.DataFrame:
        """All trials with a result, best first (see ``report.table.leaderboard``)."""
        finished, objective = self.finished_trials(), self.objective
        tied = tied_with_best(finished, self.rows(), objective)
        records = [trial.leaderboard_record(trial.number in tied) for trial in self.trials()]
        return leaderboard(records, objective)

    def write_leaderboard(self) -> None:
        """Brings ``leaderboard.csv`` up to date."""
        write_csv(self.leaderboard(), self.path / "leaderboard.csv")

    def record_run(self, environment: Mapping[str, Any]) -> None:
        """Adds versions and machines of one run to ``environment.json``.

        Raises:
            StudyError: where that file is damaged.
        """
        file = self.path / "environment.json"
        runs = read_json(file, list, "Move that file away.") if file.is_file() else []
        write_text(file, json_text([*runs, dict(environment)]))

    def lock(self) -> StudyLock:
        """The lock that a command holds while it runs the study."""
        return StudyLock(self.path)


def _is_to_be_made(path: Path, identity: Mapping[str, Any]) -> bool:
    """Whether a folder is free, or holds another study that nothing came of.

    Nothing came of it, so there is nothing to protect: a group that did not fit must
    not force the study to be called otherwise.

    Raises:
        StudyError: where it holds other files.
    """
    if (path / STUDY_FILE).is_file():
        return not (path / TRIALS).exists() and bool(StudyFolder(path)._differences(identity))
    if path.exists() and not is_vacant(path):
        raise StudyError(
            "a new study needs a folder of its own",
            got="other files" if path.is_dir() else "a file",
            where=path,
            fix="Give another name with --study.",
        )
    return True
