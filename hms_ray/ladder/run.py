"""A ladder run: what is missing is trained, and every step is read from the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pandas as pd

from hms_ray.dataset.prepare import Prepared
from hms_ray.errors import HmsRayError, StudyError
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import collect
from hms_ray.ladder.ensemble_steps import blend_step
from hms_ray.ladder.manifest import Blend
from hms_ray.ladder.plan import LadderPlan, plan_ladder
from hms_ray.ladder.result import Kind, StepResult
from hms_ray.ladder.steps import Ladder, Step
from hms_ray.report.progress import Progress, TrainingProgress
from hms_ray.storage.fold_store import FoldStore


class Trainer(Protocol):
    """Trains folds of many experiments; what is finished is in the store afterwards."""

    @property
    def placement(self) -> Placement:
        """Where it trains."""

    def train(self, plan: LadderPlan, progress: Progress) -> dict[str, str]:
        """Trains the missing folds of a plan.

        An experiment that fails is left; the others go on.

        Args:
            plan: says what is missing.
            progress: the model of what is shown.

        Returns:
            Name of a failed experiment (of the task) -> why, one line.
        """


@dataclass(frozen=True)
class LadderRun:
    """What running a ladder came to.

    Attributes:
        results: of the steps that ended well, in the ladder's order.
        failed: step -> why it has no result, in the ladder's order.
        n_trained: folds trained in this run.
        n_reused: different folds that the store held already.
    """

    results: tuple[StepResult, ...]
    failed: dict[str, str]
    n_trained: int
    n_reused: int


def run_ladder(
    ladder: Ladder, prepared: Prepared, results: str | Path, trainer: Trainer, seed: int = 0
) -> LadderRun:
    """Trains what the store does not hold yet and works out every step.

    Args:
        ladder: the steps.
        prepared: rows, folds and packs of all of them.
        results: folder of all studies and the store.
        trainer: trains what is missing.
        seed: of the patient groups of optimised blends.

    Raises:
        StudyError: where no step at all has a result.
    """
    plan = plan_ladder(ladder, prepared, results, trainer.placement)
    progress = TrainingProgress(
        prepared.n_folds,
        work={
            (task.experiment.name, task.fold): plan.costs[task.key]
            for unit in plan.missing
            for task in unit
        },
    )
    reasons = trainer.train(plan, progress) if plan.n_missing else {}
    steps = _Steps(ladder, plan, prepared.rows(), reasons, seed)
    outcomes = {step.name: steps.outcome(step.name) for step in ladder.steps}
    found = {name: made for name, made in outcomes.items() if isinstance(made, StepResult)}
    failed = {name: made for name, made in outcomes.items() if isinstance(made, str)}
    if not found:
        name, reason = next(iter(failed.items()))
        raise StudyError(
            "a ladder must have a step with a result",
            got=f"{len(failed)} failed, the first one, {name}, with: {reason}",
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


class _Steps:
    """Works out steps from what the store holds, each once."""

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
        """Folds that were to be trained and are not there."""
        return len(self._missing)

    def outcome(self, name: str) -> StepResult | str:
        """A step's result, or why it has none."""
        if name not in self._made:
            try:
                self._made[name] = self._work_out(self._ladder.step(name))
            except HmsRayError as error:
                self._made[name] = str(error)
        return self._made[name]

    def _work_out(self, step: Step) -> StepResult | str:
        return self._experiment(step) if step.blend is None else self._blend(step, step.blend)

    def _experiment(self, step: Step) -> StepResult | str:
        if step.name in self._plan.failed:
            return self._plan.failed[step.name]
        tasks = self._plan.tasks[step.name]
        for task in tasks:
            if task.key in self._missing:
                return self._missing[task.key]
        result = collect(tasks, trained=[])
        minutes = result.fold_minutes, result.saved_minutes
        made = self._result(step, "experiment", result.oof, result.optimistic, None, minutes)
        return replace(made, keys={str(fold): key for fold, key in result.keys.items()})

    def _blend(self, step: Step, blend: Blend) -> StepResult | str:
        members = {name: self.outcome(name) for name in blend.members}
        for name, made in members.items():
            if isinstance(made, str):
                return f"its member {name} failed: {made}"
        tables = [made.oof for made in members.values() if isinstance(made, StepResult)]
        oof, weights = blend_step(blend, tables, self._rows, self._seed)
        parts = [self.outcome(name) for name in self._ladder.members(step.name)]
        leaves = [made for made in parts if isinstance(made, StepResult)]
        minutes = (
            sum(made.fold_minutes for made in leaves),
            sum(made.saved_minutes for made in leaves),
        )
        kind: Kind = "fixed_blend" if blend.kind == "fixed" else "optimised_blend"
        optimistic = any(made.optimistic for made in leaves)
        return self._result(step, kind, oof, optimistic, weights, minutes)

    def _result(
        self,
        step: Step,
        kind: Kind,
        oof: pd.DataFrame,
        optimistic: bool,
        weights: dict[str, float] | None,
        minutes: tuple[float, float],
    ) -> StepResult:
        return StepResult(
            name=step.name,
            chain=step.chain,
            change=step.change,
            before=step.before,
            kind=kind,
            oof=oof,
            optimistic=optimistic,
            weights=weights,
            fold_minutes=minutes[0],
            saved_minutes=minutes[1],
            published_cv=step.published.cv,
            published_lb=step.published.lb,
            published_rows=step.published.rows,
        )
