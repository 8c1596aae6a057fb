"""What TensorBoard shows of one run: a trial, a step of a ladder or a local experiment.

The run of a trial has the curves of its folds, ``folds/K/...``, and as soon as the last fold
has passed an evaluation, the mean over all folds. Steps are epochs over all stages x 1,000,
since folds differ in optimiser steps. Its end adds the scores of all out-of-fold rows.
TensorBoard sorts charts by name; numbers bring the objective to the top.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hms_ray.config.space import Objective
from hms_ray.display.cells import RECALIBRATED
from hms_ray.display.event_file import EventFile
from hms_ray.display.run_texts import ENVIRONMENT, environment_text, plain
from hms_ray.evaluate.metric import OBJECTIVES, SCORE_NAMES

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

HistoryRecord = Mapping[str, Any]

STEPS_PER_EPOCH: Final = 1000
FOLDS: Final = "folds"
RESULT: Final = "result"
ESTIMATE: Final = f"{RESULT}/estimate"
MINUTES: Final = f"{RESULT}/minutes of training"
STATE_TEXT: Final = "1 state"
_MEANS: Final = ("1 objective", "2 scores", "3 training")
_TRAINING: Final = {
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm",
    "images_per_s": "images per second",
    "gpu_memory_gib": "GPU memory (GiB)",
    "stage_index": "stage",
}
"""Key of a record -> name of its chart."""


def objective_tag(objective: Objective) -> str:
    """Tag of the chart of a study's objective: means over folds."""
    return _mean_tag(SCORE_NAMES[objective], objective)


def result_tag(score: str) -> str:
    """Tag of a score of all out-of-fold rows; ``score`` as in a record."""
    return f"{RESULT}/{SCORE_NAMES[score]}"


def recalibrated_tag(score: str) -> str:
    """Tag of the same after nested recalibration."""
    return f"{RESULT}/{RECALIBRATED} {SCORE_NAMES[score]}"


def fold_tag(fold: int, name: str) -> str:
    """Tag of a curve of a fold; ``name``: see ``named_values``."""
    return f"{FOLDS}/{fold}/{name}"


def fold_run_tag(name: str, objective: Objective) -> str:
    """Tag of a curve of a fold that is a run of its own; ``name``: see ``named_values``."""
    return f"{_place(name, objective)}/{name}"


def _mean_tag(name: str, objective: Objective) -> str:
    return f"{_place(name, objective)}, mean over folds/{name}"


def _place(name: str, objective: Objective) -> str:
    if name == SCORE_NAMES[objective]:
        return _MEANS[0]
    return _MEANS[1] if name in _SCORES else _MEANS[2]


_CRITERION: Final = "checkpoint criterion"
_SCORES: Final = frozenset({*SCORE_NAMES.values(), _CRITERION})


def named_values(record: HistoryRecord) -> dict[str, float]:
    """Name of a chart -> value, for what a record of ``train_fold`` has.

    Losses of different kinds have charts of their own.
    """
    loss = f"loss {record['loss']}" if record.get("loss") else "loss"
    names = {**SCORE_NAMES, "criterion": _CRITERION, "train_loss": loss, **_TRAINING}
    found = {name: record.get(key) for key, name in names.items()}
    return {name: float(value) for name, value in found.items() if value is not None}


def positions(history: Sequence[HistoryRecord]) -> list[int]:
    """The step of each record: epochs over all stages x 1,000, rounded.

    Args:
        history: from the fold's first record on; records of earlier versions lack ``epochs``.
    """
    steps, stage, earlier, last = [], 0, 0.0, 0.0
    for record in history:
        index, epoch = int(record.get("stage_index", 0)), float(record["epoch"])
        if index != stage:
            stage, earlier = index, earlier + last
        last = epoch
        steps.append(round(STEPS_PER_EPOCH * (earlier + epoch)))
    return steps


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """How a run ended.

    Attributes:
        state: ``complete``, or what it is instead, see ``StoredTrial``.
        reason: why it is not complete.
        scores: of all out-of-fold rows; empty unless it is complete.
        recalibrated: ``scores`` after nested recalibration.
        estimate: of the objective, comparable between complete and pruned trials.
        minutes: of training.
        texts: tag -> Markdown.
        environment: of the command, see ``environment_text``.
        summaries: those of the HParams view.
        ended_s: Unix time; default: now.
    """

    state: str = "complete"
    reason: str | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)
    recalibrated: Mapping[str, float | None] = field(default_factory=dict)
    estimate: float | None = None
    minutes: float | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    summaries: Sequence[Summary] = ()
    ended_s: float | None = None


class RunLog:
    """The event file of one run, kept up to date while it is trained.

    Args:
        folder: of the run.
        below: folder that must exist, see ``EventFile``.
        objective: the score that is shown first.
        n_folds: folds whose mean is shown.
        read_record: gives the stored record of a cache key; raises an error without one.

    Attributes:
        first_s: Unix time of its first evaluation; infinite without one.
    """

    def __init__(
        self,
        folder: Path,
        below: Path,
        objective: Objective,
        n_folds: int,
        read_record: Callable[[str], Mapping[str, Any]],
    ) -> None:
        self.file = EventFile(folder, below)
        self._objective, self._n_folds, self._read_record = objective, n_folds, read_record
        self._values: dict[int, dict[int, dict[str, float]]] = {}
        self._complete: set[str] = set()
        self._made_with: dict[int, Mapping[str, Any]] = {}
        self.first_s = math.inf

    def begin(self) -> None:
        """Starts a run, or continues one; the end of an earlier attempt is removed."""
        self.file.drop(lambda tag: not tag.startswith((FOLDS, *_MEANS)))

    def add(self, fold: int, key: str, history: Sequence[HistoryRecord], started_s: float) -> None:
        """Adds the evaluations of a fold.

        Args:
            fold: number of the fold.
            key: cache key; values of another one are removed.
            history: records of ``train_fold``, from the first one on.
            started_s: Unix time from which their seconds count.
        """
        for step, record in zip(positions(history), history, strict=True):
            self._add(fold, key, step, record, started_s + float(record.get("seconds") or 0.0))

    def evaluated(self, fold: int, key: str, record: HistoryRecord, time_s: float) -> None:
        """Adds the evaluation that a fold has just made; for arguments see ``add``."""
        self._add(fold, key, round(STEPS_PER_EPOCH * record["epochs"]), record, time_s)

    def complete(self, fold: int, key: str) -> None:
        """Adds what is missing of a stored fold.

        Raises:
            StudyError: if the fold is not stored, or not visible yet.
        """
        if key not in self._complete:
            record = self._read_record(key)
            if self._differs(fold, record["history"]):
                # Trained anew from an earlier place, with other bits.
                self._drop(fold)
            self.add(fold, key, record["history"], float(record["started_s"]))
            self._made_with[fold] = record.get("made_with", {})
            self._complete.add(key)

    def _differs(self, fold: int, history: Sequence[HistoryRecord]) -> bool:
        """Whether a curve of a fold has a value that its stored history does not have."""
        for step, record in zip(positions(history), history, strict=True):
            for name, value in named_values(record).items():
                shown = self.file.value(fold_tag(fold, name), step)
                if shown is not None and not math.isclose(shown, value, rel_tol=1e-6):
                    return True
        return False

    def _drop(self, fold: int) -> None:
        """Removes the curves of a fold and what was made from them."""
        mine = fold_tag(fold, "")
        self.file.drop(lambda tag: tag.startswith(mine) or not tag.startswith(FOLDS))
        for values in self._values.values():
            values.pop(fold, None)

    def _add(self, fold: int, key: str, step: int, record: HistoryRecord, time_s: float) -> None:
        if self.file.marked(f"fold{fold}") != key:
            self._drop(fold)
            self.file.mark(f"fold{fold}", key)
        self.first_s = min(self.first_s, time_s)
        named = named_values(record)
        self.file.add_scalars(time_s, step, {fold_tag(fold, name): v for name, v in named.items()})
        of_step = self._values.setdefault(step, {})
        of_step[fold] = named
        if len(of_step) == self._n_folds:
            names = dict.fromkeys(name for values in of_step.values() for name in values)
            found = {name: [v[name] for v in of_step.values() if name in v] for name in names}
            means = {
                _mean_tag(name, self._objective): sum(values) / len(values)
                for name, values in found.items()
            }
            self.file.add_scalars(time_s, step, means)

    def end(self, end: RunEnd) -> None:
        """Adds the end of the run."""
        from tensorboard.plugins.text.summary_v2 import text_pb

        time_s = time.time() if end.ended_s is None else end.ended_s
        last = max(self._values, default=0)
        scores = {result_tag(name): end.scores.get(name) for name in OBJECTIVES}
        scores |= {recalibrated_tag(name): end.recalibrated.get(name) for name in OBJECTIVES}
        self.file.add_scalars(
            time_s, last, {**scores, ESTIMATE: end.estimate, MINUTES: end.minutes}
        )
        reason = f": {plain(end.reason)}" if end.reason else ""
        texts = {STATE_TEXT: end.state + reason, **end.texts}
        if end.environment or any(self._made_with.values()):
            texts[ENVIRONMENT] = environment_text(self._made_with, end.environment)
        for summary in (*(text_pb(*text) for text in texts.items()), *end.summaries):
            self.file.add(time_s, last, summary)
