"""A study's folder: its search space, its data and the results of its trials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import pandas as pd

from hms_ray.competition.rows import Unit
from hms_ray.config.former_names import in_new_form
from hms_ray.config.loading import load_space
from hms_ray.config.space import BLEND_GAIN, Objective, Space
from hms_ray.errors import StudyError
from hms_ray.evaluate.metric import OBJECTIVES
from hms_ray.storage import folder_names
from hms_ray.storage.locks import StudyLock
from hms_ray.storage.structured_files import json_text, read_json, write_text, yaml_text
from hms_ray.study.trial import (
    PRUNED,
    STOPPED,
    StoredTrial,
    best_first,
    read_trial,
)
from hms_ray.study.trial_writer import TrialWriter
from hms_ray.text import closest, shortened_list

FORMAT: Final = 1
STUDY_FILE: Final = folder_names.STUDY_FILE
ROWS_FILE: Final = "rows.parquet"
HOLDOUT_FILE: Final = "holdout.parquet"
SPACE_FILE: Final = "space.yaml"
JOURNAL: Final = "optuna.journal"
TRIALS: Final = "trials"
ENVIRONMENT_FILE: Final = "environment.json"
_LIST: Final = "List studies with: hms-ray studies"


def study_names(results: str | Path) -> list[str]:
    """Names of all studies below a results folder, sorted."""
    return sorted(file.parent.name for file in Path(results).glob(f"*/{STUDY_FILE}"))


def write_space(path: Path, space: Space) -> None:
    """Writes the resolved search space of a study's folder."""
    write_text(path / SPACE_FILE, yaml_text(space.model_dump(mode="json")))


class StudyFolder(TrialWriter):
    """The folder ``results/NAME`` of an existing study.

    Args:
        path: its folder.

    Raises:
        StudyError: if it holds no study, or ``study.json`` is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._space: tuple[int, Space] | None = None
        file = self.path / STUDY_FILE
        if not file.exists():
            raise StudyError(
                "the study must exist",
                got=f"no {STUDY_FILE}",
                where=self.path,
                fix=_LIST,
            )
        self._study = read_json(file, dict)
        if self._study.get("format") != FORMAT:
            raise StudyError(
                f"the study must have format {FORMAT}",
                got=self._study.get("format"),
                where=self.path,
                fix="Use the version of hms_ray that made it, or run the study under another name.",
            )
        if not isinstance(self._study.get("identity"), dict):
            raise StudyError(
                f"{STUDY_FILE} must hold the study's identity",
                got="none",
                where=file,
                fix="Run the study under another name.",
            )

    @classmethod
    def find(cls, study: str | Path, results: str | Path = "results") -> StudyFolder | None:
        """A study by its name below ``results`` or by its path; None if there is none.

        Raises:
            StudyError: if its ``study.json`` is damaged.
        """
        for path in folder_names.places(study, Path(results)):
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
                fix=_LIST if names else "Run one first: hms-ray sweep",
            )
        return found

    @property
    def identity(self) -> dict[str, Any]:
        """Search space and data as plain data; see ``study_identity``."""
        return in_new_form(self._study["identity"])

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
        """The resolved search space; read again after its file was replaced."""
        file = self.path / SPACE_FILE
        stamp = file.stat().st_mtime_ns if file.is_file() else 0
        if self._space is None or self._space[0] != stamp:
            self._space = stamp, load_space(file, stored=True)
        return self._space[1]

    @property
    def objective(self) -> Objective:
        """The score that orders the trials; of a study by blend gain, the score of its rows."""
        # Part of the identity, which is read already; the space takes longer to read.
        found = self.identity.get("gain", {}).get("rows", self.identity.get("metric"))
        for name in OBJECTIVES:
            if name == found:
                return cast("Objective", name)
        return self.space().objective

    @property
    def by_gain(self) -> bool:
        """Whether the metric is ``blend_gain``."""
        return bool(self.identity.get("metric") == BLEND_GAIN)

    @property
    def row_unit(self) -> Unit:
        """Unit of the row ids."""
        return self.space().experiment.data.unit

    def write_space(self, space: Space) -> None:
        """Replaces the resolved search space; the caller must hold the lock."""
        write_space(self.path, space)
        self._space = None

    def rows(self) -> pd.DataFrame:
        """The study's training rows with votes, targets and folds.

        Raises:
            StudyError: if their file is missing or damaged.
        """
        return self._table(ROWS_FILE)

    def held_out_rows(self) -> pd.DataFrame | None:
        """Rows of held-out patients, see ``make_rows``; None without ``data.holdout``.

        Raises:
            StudyError: if their file is missing or damaged.
        """
        return self._table(HOLDOUT_FILE) if "holdout" in self.identity.get("data", {}) else None

    def _table(self, name: str) -> pd.DataFrame:
        try:
            return pd.read_parquet(self.path / name)
        except (OSError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError)
            raise StudyError(
                f"{name} must be readable",
                got="no file" if missing else str(error).splitlines()[0],
                where=self.path,
                fix="Run the study under another name: its folds stay in the fold store.",
            ) from None

    def trial_path(self, number: int) -> Path:
        """Folder of a trial, which may not exist yet."""
        return self.path / TRIALS / f"{number:04d}"

    def trial(self, number: int) -> StoredTrial | None:
        """A trial's result; None if it has none yet.

        Raises:
            StudyError: if its ``result.json`` is damaged.
        """
        return read_trial(self.trial_path(number))

    def trial_numbers(self) -> list[int]:
        """Numbers of all trial folders, sorted."""
        names = [path.name for path in (self.path / TRIALS).glob("*")]
        return sorted(int(name) for name in names if name.isdigit())

    def trials(self) -> list[StoredTrial]:
        """All trials with a result, finished or failed, by number."""
        found = [self.trial(number) for number in self.trial_numbers()]
        return [trial for trial in found if trial is not None]

    def finished_trials(self) -> list[StoredTrial]:
        """Finished trials, best objective first; equal scores by number."""
        return best_first(self.trials(), self.objective)

    def require_finished(self) -> list[StoredTrial]:
        """``finished_trials``, at least one.

        Raises:
            StudyError: if no trial has finished.
        """
        finished = self.finished_trials()
        if not finished:
            raise StudyError(
                "the study needs a finished trial",
                got="none",
                where=self.path,
                fix="Resume it: hms-ray sweep",
            )
        return finished

    def finished_trial(self, number: int | None = None) -> StoredTrial:
        """A finished trial; default: the best one.

        Raises:
            StudyError: if the trial does not exist or did not finish.
        """
        finished = self.require_finished()
        for trial in finished:
            if number in (None, trial.number):
                return trial
        assert number is not None
        other = self.trial(number)
        reason = "does not exist" if other is None else other.end_text
        if other is not None and other.state in (PRUNED, STOPPED):
            reason = f"was {reason}"
        numbers = [f"{trial.number:04d}" for trial in finished]
        raise StudyError(
            "the trial must have finished",
            got=f"trial {number:04d}, which {reason}",
            where=self.path,
            fix=f"Use a finished one, best first: {shortened_list(numbers)}.",
        )

    def record_run(self, environment: Mapping[str, Any]) -> None:
        """Adds versions and machines of one run to ``environment.json``.

        Raises:
            StudyError: if that file is damaged.
        """
        write_text(self.path / ENVIRONMENT_FILE, json_text([*self.runs(), dict(environment)]))

    def runs(self) -> list[dict[str, Any]]:
        """Versions and machines of each run, oldest first.

        Raises:
            StudyError: if their file is damaged.
        """
        file = self.path / ENVIRONMENT_FILE
        return read_json(file, list, "Move that file away.") if file.is_file() else []

    def lock(self) -> StudyLock:
        """The lock that a command holds while it runs the study."""
        return StudyLock(self.path)
