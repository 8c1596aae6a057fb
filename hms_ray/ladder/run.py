"""Runs a ladder: trains missing folds and reads every step from the fold store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from hms_ray.dataset.prepare import Prepared
from hms_ray.display.notice import Event
from hms_ray.display.progress import Progress, TrainingProgress
from hms_ray.errors import HmsRayError, StudyError
from hms_ray.experiment.older_folds import not_reused
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import collect
from hms_ray.ladder.board import LadderBoard
from hms_ray.ladder.ensemble_steps import blend_step
from hms_ray.ladder.image_visits import missing_visits
from hms_ray.ladder.manifest import Blend
from hms_ray.ladder.plan import LadderPlan, plan_ladder
from hms_ray.ladder.result import StepResult
from hms_ray.ladder.steps import Ladder, LadderStep
from hms_ray.storage.fold_store import FoldStore
from hms_ray.text import counted


class Trainer(Protocol):
    """Trains folds of many experiments into the fold store."""

    @property
    def placement(self) -> Placement:
        """Where it trains."""

    def train(self, plan: LadderPlan, progress: Progress) -> dict[str, str]:
        """Trains the missing folds of a plan.

        An experiment that fails is skipped; the others continue.

        Args:
            plan: the missing folds.
            progress: shown while training.

        Returns:
            Name of a failed experiment (of the task) -> reason, one line.
        """


@dataclass(frozen=True)
class LadderRun:
    """Outcome of a run.

    Attributes:
        results: of the steps that succeeded, in the ladder's order.
        failed: step -> reason, in the ladder's order.
        n_trained: folds trained in this run.
        n_reused: different folds reused from the fold store.
    """

    results: tuple[StepResult, ...]
    failed: dict[str, str]
    n_trained: int
    n_reused: int


def run_ladder(
    ladder: Ladder,
    prepared: Prepared,
    results: str | Path,
    trainer: Trainer,
    seed: int = 0,
    announce: Callable[[str], None] = lambda text: None,
    folder: Path | None = None,
) -> LadderRun:
    """Trains the folds that are not in the fold store, and computes every step.

    Args:
        ladder: the steps.
        prepared: rows, folds and packs of all of them.
        results: folder of all studies and the store.
        trainer: trains missing folds.
        seed: of the patient groups of optimised blends.
        announce: gets a line about the folds to be trained, before training.
        folder: of the ladder, for TensorBoard logs. Default: none are written.

    Raises:
        StudyError: if no step has a result.
    """
    plan = plan_ladder(ladder, prepared, results, trainer.placement)
    announce(_plan_text(ladder, plan, prepared))
    if text := not_reused([task for unit in plan.missing for task in unit]):
        announce(text)
    work = {
        (task.experiment.name, task.fold): plan.costs[task.key]
        for unit in plan.missing
        for task in unit
    }
    with ExitStack() as stack:
        board = None if folder is None else stack.enter_context(LadderBoard(folder, plan.tasks))
        handle = _ignore if board is None else board.handle
        progress = TrainingProgress(prepared.n_folds, work=work, on_event=handle)
        reasons = trainer.train(plan, progress) if plan.n_missing else {}
        trained = [task for unit in plan.missing for task in unit]
        FoldStore(results).wait_for(
            [task.key for task in trained if task.experiment.name not in reasons]
        )
        steps = _Steps(ladder, plan, prepared.rows(), reasons, seed)
        outcomes = {step.name: steps.outcome(step.name) for step in ladder.steps}
        if board is not None:
            board.ended(outcomes, prepared.rows())
    found = {name: made for name, made in outcomes.items() if isinstance(made, StepResult)}
    failed = {name: made for name, made in outcomes.items() if isinstance(made, str)}
    if not found:
        name, reason = next(iter(failed.items()))
        raise StudyError(
            "at least one step must have a result",
            got=f"{len(failed)} failed, the first, {name}, with: {reason}",
        )
    return LadderRun(
        results=tuple(
            made if made.before in (None, *found) else replace(made, before=None)
            for made in found.values()
        ),
        failed=failed,
        n_trained=plan.n_missing - steps.n_missing,
        n_reused=plan.n_stored,
    )


def _ignore(event: Event) -> None:
    """Discards an event."""


def _plan_text(ladder: Ladder, plan: LadderPlan, prepared: Prepared) -> str:
    missing = [task for unit in plan.missing for task in unit]
    visits = missing_visits(missing, prepared.rows(), share_stages=ladder.resources.share_stages)
    return (
        f"to train: {counted(len(missing), 'fold')}, {visits:,} image visits; "
        f"{plan.n_stored} reused from the fold store"
    )


class _Steps:
    """Computes the steps from the fold store, each once."""

    def __init__(
        self,
        ladder: Ladder,
        plan: LadderPlan,
        rows: pd.DataFrame,
        reasons: Mapping[str, str],
        seed: int,
    ) -> None:
        self._ladder, self._plan, self._rows, self._seed = ladder, plan, rows, seed
        self._missing = {
            task.key: reasons.get(task.experiment.name, "its folds were not all trained")
            for unit in plan.missing
            for task in unit
            if not FoldStore(task.results).has(task.key)
        }
        self._made: dict[str, StepResult | str] = {}

    @property
    def n_missing(self) -> int:
        """Folds that were to be trained and are still missing."""
        return len(self._missing)

    def outcome(self, name: str) -> StepResult | str:
        """A step's result, or the reason why it has none."""
        if name not in self._made:
            try:
                self._made[name] = self._compute(self._ladder.step(name))
            except HmsRayError as error:
                self._made[name] = str(error)
        return self._made[name]

    def _compute(self, step: LadderStep) -> StepResult | str:
        return self._experiment(step) if step.blend is None else self._blend(step, step.blend)

    def _experiment(self, step: LadderStep) -> StepResult | str:
        if step.name in self._plan.failed:
            return self._plan.failed[step.name]
        tasks = self._plan.tasks[step.name]
        for task in tasks:
            if task.key in self._missing:
                return self._missing[task.key]
        result = collect(tasks, trained=[])
        return _step_result(
            step,
            kind="experiment",
            oof=result.oof,
            optimistic=result.optimistic,
            weights=None,
            fold_minutes=result.fold_minutes,
            saved_minutes=result.saved_minutes,
            keys={str(fold): key for fold, key in result.keys.items()},
            checkpoint=tasks[0].experiment.training.checkpoint,
        )

    def _blend(self, step: LadderStep, blend: Blend) -> StepResult | str:
        members = {name: self.outcome(name) for name in blend.members}
        for name, made in members.items():
            if isinstance(made, str):
                return f"its member {name} failed: {made}"
        tables = [made.oof for made in members.values() if isinstance(made, StepResult)]
        oof, weights = blend_step(blend, tables, self._rows, self._seed)
        parts = [self.outcome(name) for name in self._ladder.members(step.name)]
        leaves = [made for made in parts if isinstance(made, StepResult)]
        kept = {made.checkpoint for made in leaves}
        return _step_result(
            step,
            kind=f"{blend.kind}_blend",
            oof=oof,
            optimistic=any(made.optimistic for made in leaves),
            weights=weights,
            fold_minutes=sum(made.fold_minutes for made in leaves),
            saved_minutes=sum(made.saved_minutes for made in leaves),
            checkpoint=kept.pop() if len(kept) == 1 else None,
        )


def _step_result(step: LadderStep, **outcome: Any) -> StepResult:
    return StepResult(
        name=step.name,
        chain=step.chain,
        change=step.change,
        before=step.before,
        published_cv=step.published.cv,
        published_lb=step.published.lb,
        published_rows=step.published.rows,
        published_last=step.published.last,
        **outcome,
    )
