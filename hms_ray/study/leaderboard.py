"""A study's leaderboard: kept up to date trial by trial, as text, JSON and CSV."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hms_ray.display.leaderboard import leaderboard, pruned_text, render, write_csv
from hms_ray.display.tables import to_text
from hms_ray.display.trial_choice import TrialChoice, choice_text
from hms_ray.ensemble.nested_choice import nested_choice
from hms_ray.errors import HmsRayError
from hms_ray.evaluate.intervals import Interval, PatientSums, sum_by_patient
from hms_ray.evaluate.metric import OBJECTIVES, Array
from hms_ray.study.confirmation import confirmation_table, confirmed_trials
from hms_ray.study.folder import StudyFolder
from hms_ray.study.row_scores import RecalibratedRows, RowScores
from hms_ray.study.ties import tied_with_best
from hms_ray.study.trial import PRUNED, StoredTrial, best_first, saved_by_pruning

if TYPE_CHECKING:
    from hms_ray.study.gain_ranking import GainRanking


class Leaderboard:
    """All trials of a study and what follows from their row scores.

    Scores are held as sums by patient, 8 MB for 500 trials of 1,950 patients. After a trial
    has ended, ``add`` reads that trial alone.

    Args:
        folder: the study.
        on_damaged: called with the error of a trial that cannot be read, which is then
            skipped. Default: the error is raised.

    Raises:
        StudyError: if the study's rows or a trial cannot be read.
    """

    def __init__(
        self, folder: StudyFolder, on_damaged: Callable[[HmsRayError], None] | None = None
    ) -> None:
        self.folder = folder
        self._on_damaged = on_damaged
        self.rows = folder.rows()
        self.objective = folder.objective
        self._row_scores = RowScores(self.rows)
        self._counted = (self.rows["total_votes"] >= OBJECTIVES[self.objective]).to_numpy()
        self._patients = self.rows["patient_id"].to_numpy()[self._counted]
        self._sizes = np.unique(self._patients, return_counts=True)[1].astype(np.float64)
        self._trials: dict[int, StoredTrial] = {}
        self._sums: dict[int, Array] = {}
        self._recalibrated_rows = RecalibratedRows(self.rows, self.objective)
        self._recalibrated: dict[int, Array] = {}
        self._gains: GainRanking | None = None
        if folder.by_gain:
            # Fits of blends take a third of the time that a short command needs to start.
            from hms_ray.study.gain_ranking import GainRanking

            self._gains = GainRanking(folder, self.rows)
        self._compared: int | None = None
        self._ties: dict[int, bool] = {}
        for number in folder.trial_numbers():
            self.add(number)

    def add(self, number: int) -> Array | None:
        """Reads a trial that has ended, also one that was added before.

        Returns:
            KL (n,) of each row of a finished trial, in the order of ``rows``; else None.
        """
        try:
            trial = self.folder.trial(number)
            scores = None
            if trial is not None and trial.finished:
                scores = self._row_scores.of(trial.path)
        except HmsRayError as error:
            if self._on_damaged is None:
                raise
            self._on_damaged(error)
            return None
        if trial is not None:
            self._trials[number] = trial
            self._set_sums(number, scores)
            if number in self._sums:
                kept = self._recalibrated_rows.kept(trial.path)
                if kept is not None:
                    found = sum_by_patient(kept[None], self._patients)
                    self._recalibrated[number] = found.sums[0]
        return scores

    def _set_sums(self, number: int, scores: Array | None) -> None:
        self._sums.pop(number, None)
        self._recalibrated.pop(number, None)
        self._ties.pop(number, None)
        if number == self._compared:
            self._compared = None
        if scores is not None and self._counted.any():
            found = sum_by_patient(scores[None, self._counted], self._patients)
            self._sums[number] = found.sums[0]

    @property
    def trials(self) -> list[StoredTrial]:
        """All trials with a result, finished or failed, by number."""
        return [self._trials[number] for number in sorted(self._trials)]

    @property
    def finished(self) -> list[StoredTrial]:
        """Finished trials, best first; equal scores by number."""
        return best_first(self._trials.values(), self.objective)

    def frame(self) -> pd.DataFrame:
        """All trials with a result, best first; see ``report.leaderboard.leaderboard``."""
        if self._gains is not None:
            found = self._gains.records([trial.number for trial in self.finished])
            records = [
                {**trial.leaderboard_record(False), **found.get(trial.number, {})}
                for trial in self.trials
            ]
            return leaderboard(records, self.objective)
        tied = self._tied()
        return leaderboard(
            [trial.leaderboard_record(trial.number in tied) for trial in self.trials],
            self.objective,
        )

    def _tied(self) -> set[int]:
        """Trials that are a tie with the best one; known ones are not compared again."""
        numbers = [trial.number for trial in self.finished if trial.number in self._sums]
        if not numbers:
            return set()
        best, *others = numbers
        if best != self._compared:
            self._compared, self._ties = best, {}
        missing = [number for number in others if number not in self._ties]
        if missing:
            found = tied_with_best([best, *missing], self._scores([best, *missing]))
            self._ties.update((number, number in found) for number in missing)
        return {number for number, tied in self._ties.items() if tied}

    def _scores(self, numbers: list[int]) -> PatientSums:
        return PatientSums(np.stack([self._sums[number] for number in numbers]), self._sizes)

    def intervals(self) -> dict[int, Interval]:
        """Number of a finished trial -> its objective with a 95% interval, see ``PatientSums``."""
        numbers = sorted(self._sums)
        return dict(zip(numbers, self._scores(numbers).intervals(), strict=True)) if numbers else {}

    def choice(self) -> TrialChoice:
        """The score of the best trial beside the nested KL of choosing it."""
        finished = self.finished
        if not finished:
            return TrialChoice(self.objective, 0)
        best, numbers = finished[0], sorted(self._sums)
        plain = TrialChoice(
            objective=self.objective,
            n_trials=len(finished),
            best_trial=best.number,
            best_score=best.scores[self.objective],
            optimistic=best.optimistic,
            n_patients=len(self._sizes),
        )
        if len(numbers) < 2 or len(self._sizes) < 2:
            return plain
        # By number: an order by score would let the scored patients decide between equals.
        recalibrated = None
        if all(number in self._recalibrated for number in numbers):
            corrected = np.stack([self._recalibrated[number] for number in numbers])
            recalibrated = PatientSums(corrected, self._sizes)
        found = nested_choice(
            self._scores(numbers),
            self.rows["patient_id"].to_numpy(),
            self._counted,
            recalibrated=recalibrated,
        )
        chosen = {numbers[position]: times for position, times in found.times_chosen.items()}
        return replace(
            plain,
            nested=found.nested.mean,
            low=found.nested.low,
            high=found.nested.high,
            optimism=found.optimism,
            times_chosen={f"{number:04d}": times for number, times in chosen.items()},
            n_splits=found.n_splits,
            n_seeds=len(found.seeds),
            recalibrated=found.recalibrated,
            optimistic=any(self._trials[number].optimistic for number in (best.number, *chosen)),
        )

    def write_csv(self) -> None:
        """Brings the study's ``leaderboard.csv`` up to date."""
        write_csv(self.frame(), self.folder.path / "leaderboard.csv")

    def text(self) -> str:
        """The trials, best first; the nested KL of the choice; why others failed."""
        failed = [
            f"trial {trial.number:04d} {trial.end_text}"
            for trial in self.trials
            if not trial.finished and trial.state != PRUNED
        ]
        note = "" if self._gains is None else self._gains.text()
        texts = "\n\n".join(filter(None, [note, choice_text(self.choice())]))
        lines = [render(self.frame(), texts), *self._pruned_lines(), *failed]
        if table := confirmation_table(confirmed_trials(self.folder), self.objective):
            lines.append(f"\n{to_text(table)}")
        return "\n".join(lines)

    def _pruned_lines(self) -> list[str]:
        """How many trials were pruned, and what that saved."""
        text = pruned_text(*saved_by_pruning(self.trials))
        return [text] if text else []

    def json(self) -> str:
        """The same as JSON: one record per trial with every value, and reasons of failures."""
        table = self.frame()
        reasons = {f"{trial.number:04d}": trial.reason for trial in self.trials}
        table["reason"] = table["trial"].map(reasons)
        content = {
            "study": self.folder.name,
            "objective": self.objective,
            **({} if self._gains is None else {"reference": self._gains.to_json()}),
            "choice": asdict(self.choice()),
            "confirmed": [asdict(trial) for trial in confirmed_trials(self.folder)],
            "trials": json.loads(table.to_json(orient="records", double_precision=15)),
        }
        return json.dumps(content, indent=1)
