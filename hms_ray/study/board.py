"""The TensorBoard runs of a study: ``STUDY/board/0003``, one per trial."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from hms_ray.config.space import Space
from hms_ray.display.hparams import (
    MODEL,
    REASON,
    declare,
    has_session,
    session,
    session_name,
)
from hms_ray.display.live_runs import LiveRuns
from hms_ray.display.notice import Event
from hms_ray.display.run_texts import DIFFERENCE, difference_text, experiment_texts
from hms_ray.display.tensorboard import RunEnd, RunLog
from hms_ray.evaluate.metric import named_scores
from hms_ray.storage.faults import make_folder
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.folder_names import BOARD
from hms_ray.storage.run_log import FaultLog
from hms_ray.study.folder import StudyFolder
from hms_ray.study.trial import StoredTrial, best_first

logger = logging.getLogger(__name__)

_FORMER: Final = (
    "trials/*/fold_*/events.out.tfevents.*",
    "../events.out.tfevents.*.hms_ray",
    "../hparams.json",
)
"""Files of earlier versions, which would be further runs."""


class StudyBoard:
    """Keeps the runs of a study's trials up to date while a block runs.

    A run grows with the events of its trial. When the trial has ended, what events missed is
    read from the fold store, and its scores and its session for the HParams view are added.

    Args:
        folder: the study.
        results: folder of the fold store.
    """

    def __init__(self, folder: StudyFolder, results: Path) -> None:
        self._folder, self._path = folder, folder.path / BOARD
        self._store = FoldStore(results)
        self._declared = False
        self._best: StoredTrial | None = None
        self._faults = FaultLog(logger)
        self._live = LiveRuns(self._open, _run_of)

    def __enter__(self) -> StudyBoard:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def handle(self, event: Event) -> None:
        """Takes an event of the study, see ``TrainingProgress``; returns at once."""
        self._live.handle(event)

    def trial_ended(self, trial: StoredTrial) -> None:
        """Completes the run of a trial that has ended, in any state; returns at once."""
        self._take_best([trial])
        end = partial(self._end, trial, self._best)
        self._live.end(run_name(trial.number), trial.keys, end)

    def catch_up(self, trials: Iterable[StoredTrial]) -> None:
        """Completes the runs of trials that ended in earlier runs; returns at once."""
        found = list(trials)
        self._take_best(found)
        self._live.do(partial(self._catch_up, found, self._best))

    def _take_best(self, trials: Iterable[StoredTrial]) -> None:
        known = [] if self._best is None else [self._best]
        self._best = next(iter(best_first([*known, *trials], self._folder.objective)), None)

    def _catch_up(self, trials: list[StoredTrial], best: StoredTrial | None) -> None:
        for file in (file for pattern in _FORMER for file in self._folder.path.glob(pattern)):
            file.unlink(missing_ok=True)
        for trial in trials:
            name = run_name(trial.number)
            with self._faults(f"the TensorBoard files of trial {name} were not completed"):
                if not has_session(self._path / name):
                    self._live.complete(name, trial.keys, partial(self._end, trial, best))

    @cached_property
    def _space(self) -> Space:
        return self._folder.space()

    @cached_property
    def _n_folds(self) -> int:
        return int(self._folder.rows()["fold"].nunique())

    def _open(self, name: str) -> RunLog:
        run, study = self._path / name, self._folder.path
        make_folder(run, study)
        if not self._declared:
            self._declared = True
            with self._faults("TensorBoard's columns were not declared"):
                self._declare()
        return RunLog(run, study, self._folder.objective, self._n_folds, self._store.record)

    def _declare(self) -> None:
        parameters = self._space.parameters
        searched = any(
            path in ("model", "model.name") or path.startswith("model.branches")
            for path in parameters
        )
        models = [] if searched else [self._space.experiment.model.title]
        declare(self._path, parameters, self._folder.objective, models)

    def _environment(self, ended_s: float) -> dict[str, Any]:
        """That of the run of the study in which a trial ended."""
        with self._faults("the environment of the study could not be read"):
            ended = datetime.fromtimestamp(ended_s, UTC).isoformat(timespec="seconds")
            # Times of one form are in the order of their texts.
            return next(
                (run for run in reversed(self._folder.runs()) if run["started"] <= ended), {}
            )
        return {}

    def _end(self, trial: StoredTrial, best: StoredTrial | None, run: RunLog) -> RunEnd:
        objective = self._folder.objective
        score = trial.scores.get(objective)
        ended_s = (trial.path / "result.json").stat().st_mtime
        started_s = run.first_s if math.isfinite(run.first_s) else ended_s
        name = session_name(self._folder.name, trial.number, trial.state, score)
        experiment, texts = trial.experiment, dict[str, str]()
        columns = {MODEL: experiment.model.title, REASON: trial.reason}
        if best is not None:
            named = named_scores({objective: best.scores[objective]})
            texts[DIFFERENCE] = difference_text(
                trial.point, best.point, f"{best.number:04d}", named
            )
        summaries = session(
            name,
            {**trial.point, **columns},
            self._space.parameters,
            trial.state,
            started_s,
            ended_s,
        )
        return RunEnd(
            state=trial.state,
            reason=trial.reason,
            scores=trial.scores,
            recalibrated=trial.recalibrated,
            estimate=score if trial.finished else trial.estimate,
            minutes=trial.fold_minutes if trial.keys else None,
            texts={**texts, **experiment_texts(experiment)},
            environment=self._environment(ended_s),
            summaries=summaries,
            ended_s=ended_s,
        )


def run_name(number: int) -> str:
    """Name of the run of a trial."""
    return f"{number:04d}"


def _run_of(event: Event) -> str | None:
    return run_name(event["trial"]) if "trial" in event else None
