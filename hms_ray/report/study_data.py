"""A study as its report reads it: whatever is there, and a list of what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.dataset.hold_out import DATA_DIR
from hms_ray.display.leaderboard import leaderboard
from hms_ray.display.trial_choice import TrialChoice
from hms_ray.errors import HmsRayError, one_line
from hms_ray.evaluate.intervals import Interval
from hms_ray.evaluate.metric import OBJECTIVES, Array
from hms_ray.evaluate.oof import probabilities_of, read_oof
from hms_ray.pack.build import default_pack_dir
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.folder_names import BLEND, BLEND_FILE
from hms_ray.storage.locks import running_since
from hms_ray.storage.structured_files import read_json
from hms_ray.study.folder import StudyFolder
from hms_ray.study.leaderboard import Leaderboard
from hms_ray.study.trial import StoredTrial, best_first
from hms_ray.text import counted, shortened_list

SIMULATION_FILE: Final = "simulation.json"
"""A competition folder with this file was simulated."""
_FAULTS: Final = (HmsRayError, OSError, ValueError, LookupError, TypeError, AttributeError)


class StudyData:
    """Reads a study; a part that cannot be read is noted and empty, nothing is raised.

    Args:
        folder: the study.

    Attributes:
        folder: the study.
        missing: sentences on what could not be read, in the order in which it was found.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder
        self.missing: list[str] = []
        self._store = FoldStore(folder.path.resolve().parent)

    @classmethod
    def of(cls, study: StudyData | StudyFolder | str | Path, results: str | Path) -> StudyData:
        """A study by its name below ``results``, by its path, or as it is.

        Raises:
            StudyError: if there is none, or its ``study.json`` is damaged.
        """
        if isinstance(study, StudyData):
            return study
        return cls(study if isinstance(study, StudyFolder) else StudyFolder.open(study, results))

    def note(self, text: str) -> None:
        """Adds a sentence on what is missing, once."""
        if text not in self.missing:
            self.missing.append(text)

    @contextmanager
    def noted(self, what: str) -> Iterator[None]:
        """Notes the error of a block that reads ``what``, if it has one."""
        try:
            yield
        except _FAULTS as error:
            self.note(f"{what}: {one_line(error)}")

    @cached_property
    def rows(self) -> pd.DataFrame | None:
        """The study's rows; None if they cannot be read."""
        with self.noted("The study's rows, and all that is computed from predictions"):
            return self.folder.rows()
        return None

    @cached_property
    def board(self) -> Leaderboard | None:
        """The leaderboard of the trials whose predictions can be read; None without rows."""
        if self.rows is None:
            return None
        with self.noted("The leaderboard"):
            return Leaderboard(self.folder, on_damaged=self._note_damaged)
        return None

    def _note_damaged(self, error: HmsRayError) -> None:
        self.note(f"A trial that cannot be read in full: {error}")

    @cached_property
    def trials(self) -> list[StoredTrial]:
        """All trials with a result, by number."""
        found = []
        for number in self.folder.trial_numbers():
            try:
                trial = self.folder.trial(number)
            except HmsRayError as error:
                if self.board is None:  # which has noted it already
                    self._note_damaged(error)
                continue
            if trial is not None:
                found.append(trial)
        if not found:
            self.note("No trial has ended yet.")
        elif not any(trial.finished for trial in found):
            self.note("No trial has finished: there are no scores and no predictions.")
        return found

    @property
    def objective(self) -> str:
        """The score that orders the trials."""
        return self.folder.objective

    @cached_property
    def finished(self) -> list[StoredTrial]:
        """Finished trials with usable predictions, best first."""
        return self.board.finished if self.board else best_first(self.trials, self.folder.objective)

    def leaderboard(self) -> pd.DataFrame:
        """All trials, best first, see ``display.leaderboard.leaderboard``."""
        if self.board is None:
            return leaderboard(
                [trial.leaderboard_record(False) for trial in self.trials], self.folder.objective
            )
        known = {trial.number for trial in self.board.trials}
        others = [trial for trial in self.trials if trial.number not in known]
        if not others:
            return self.board.frame()
        # Trials without predictions have no ties, but keep their rank.
        frame = self.board.frame()
        tied = set(frame.loc[frame["tied"].eq(True), "trial"]) if "tied" in frame else set()
        return leaderboard(
            [trial.leaderboard_record(f"{trial.number:04d}" in tied) for trial in self.trials],
            self.folder.objective,
        )

    def intervals(self) -> dict[int, Interval]:
        """Number of a trial -> its score of the objective with a 95% interval."""
        return {} if self.board is None else self.board.intervals()

    def choice(self) -> TrialChoice | None:
        """The nested score of choosing the best trial; None if it is unknown."""
        with self.noted("The nested score of the choice"):
            return None if self.board is None else self.board.choice()
        return None

    def trial(self, number: int | None) -> StoredTrial | None:
        """A finished trial with predictions; None: the best one."""
        if number is None:
            return self.finished[0] if self.finished else None
        return next((trial for trial in self.finished if trial.number == number), None)

    def predictions(self, trial: StoredTrial) -> Array | None:
        """(n, 6) out-of-fold predictions in the order of ``rows``; None if unreadable."""
        if self.rows is None:
            return None
        with self.noted(f"Predictions of trial {trial.number:04d}"):
            return probabilities_of(trial.oof(self.rows))
        return None

    @property
    def targets(self) -> Array:
        """(n, 6) shares of the votes."""
        assert self.rows is not None
        found: Array = self.rows[list(TARGET_COLUMNS)].to_numpy("float64")
        return found

    def counted_rows(self, objective: str | None = None) -> Any:
        """(n,) mask of the rows of a score; default: the objective's."""
        assert self.rows is not None
        fewest = OBJECTIVES[objective or self.objective]
        return (self.rows["total_votes"] >= fewest).to_numpy()

    def records(self, trial: StoredTrial) -> dict[int, Mapping[str, Any]]:
        """Fold -> its record in the fold store; folds without one are noted."""
        found: dict[int, Mapping[str, Any]] = {}
        lost = []
        for fold, key in sorted(trial.keys.items()):
            try:
                found[fold] = self._store.record(key)
            except HmsRayError:
                lost.append(str(fold))
        if lost:
            self._lost[trial.number] = lost
        return found

    @cached_property
    def _lost(self) -> dict[int, list[str]]:
        return {}

    def note_lost_records(self) -> None:
        """Notes the folds whose records were looked for in vain."""
        if self._lost:
            n_folds = counted(sum(map(len, self._lost.values())), "fold")
            numbers = shortened_list([f"{number:04d}" for number in self._lost])
            self.note(
                f"Curves of {n_folds}, which the fold store does not have any more: trials "
                f"{numbers}."
            )

    @cached_property
    def blend(self) -> dict[str, Any] | None:
        """Content of the study's ``blend.json``; None without a blend."""
        file = self.folder.path / BLEND / BLEND_FILE
        if not file.is_file():
            return None
        with self.noted("The blend"):
            found = read_json(file, dict)
            # What an earlier version did not write.
            for name in ("method", "members", "nested", "in_sample"):
                found[name]
            return dict(found)
        return None

    def blend_predictions(self) -> Array | None:
        """(n, 6) nested predictions of the blend in the order of ``rows``; None without."""
        if self.blend is None or self.rows is None:
            return None
        with self.noted("Nested predictions of the blend"):
            file = self.folder.path / BLEND / str(self.blend["oof"]["nested"])
            return probabilities_of(read_oof(file, self.rows))
        return None

    @cached_property
    def runs(self) -> list[dict[str, Any]]:
        """Versions and machines of each run; empty if unknown."""
        file = self.folder.path / "environment.json"
        with self.noted("Versions and machines of the runs"):
            return list(read_json(file, list)) if file.is_file() else []
        return []

    @cached_property
    def running(self) -> bool:
        """Whether a command runs the study now."""
        return running_since(self.folder.path) is not None

    @property
    def command(self) -> list[str]:
        """Words of the last run's command after the program; empty if unknown."""
        words = self.runs[-1].get("command") if self.runs else None
        return [str(word) for word in words[1:]] if isinstance(words, list) else []

    @property
    def data_folder(self) -> Path | None:
        """The competition folder of the study, as its rows, its journal or its command name it."""
        recorded = None if self.rows is None else self.rows.attrs.get(DATA_DIR)
        if found := recorded or self.journal_attributes.get("data"):
            return Path(str(found))
        words = self.command
        for place, word in enumerate(words):
            if word == "--data" and place + 1 < len(words):
                return Path(words[place + 1])
            if word.startswith("--data="):
                return Path(word.removeprefix("--data="))
        return None

    @property
    def simulated(self) -> bool | None:
        """Whether the data are simulated; None if unknown."""
        recorded = self.journal_attributes.get("simulated")
        if isinstance(recorded, bool):
            return recorded
        folder = self.data_folder
        if folder is None or not folder.is_dir():
            return None
        return (folder / SIMULATION_FILE).is_file()

    def check_files(self) -> None:
        """Notes files that the report does not need, but whoever continues the study does."""
        self.journal_attributes  # noqa: B018 - notes what is wrong with it
        data = self.data_folder
        if data is not None and not data.is_dir():
            self.note(f"The competition folder {data} is not here, or the command ran elsewhere.")
        elif data is not None and "--pack-dir" not in self.command:
            packs = default_pack_dir(data)
            if not packs.is_dir():
                self.note(f"The packs in {packs} are gone: training packs again first.")

    @cached_property
    def journal_attributes(self) -> dict[str, Any]:
        """Attributes of the search in Optuna's journal, which is read as text, never opened.

        Notes a missing or damaged journal.
        """
        journal, found = self.folder.journal, dict[str, Any]()
        if not journal.is_file():
            self.note(f"Optuna's journal, {journal.name}: a resumed search starts again.")
            return found
        with self.noted("Optuna's journal"):
            lines = journal.read_text(encoding="utf-8").split("\n")
            # A running study is about to write the rest.
            if lines[-1] and not self.running:
                self.note(
                    "The end of Optuna's journal: its last record is incomplete, as after a full "
                    "disk. The next run of the study cuts it off."
                )
            for number, line in enumerate(lines[:-1], start=1):
                try:
                    record = json.loads(line)
                except ValueError:
                    self.note(f"Optuna's journal cannot be read from its line {number} on.")
                    break
                if "trial_id" not in record:
                    found.update(record.get("user_attr") or {})
        return found
