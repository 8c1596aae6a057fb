"""When a trial is stopped before all of its folds are trained."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, get_args

from pydantic import Field, model_validator

from hms_ray.config.eeg_recipes import Count, Frozen, Positive

Rule = Literal["paired", "median", "successive_halving", "wilcoxon", "none"]
RULES: Final[tuple[Rule, ...]] = get_args(Rule)


class PruneConfig(Frozen):
    """The rule that stops trials between folds; ``prune: none`` is short for ``rule: none``."""

    rule: Rule = "paired"
    """``paired``: a one-sided test of the difference to the best trial on the folds that
    both have. ``median``: worse than the median of the finished trials after as many folds.
    ``successive_halving``: not in the better half of the trials after 1, 2, 4, ... folds.
    ``wilcoxon``: Optuna's signed-rank test of the folds. ``none``: nothing is stopped."""
    level: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Of ``paired``: largest probability that a trial as good as the best one is stopped,
    over all folds together. Of ``wilcoxon``: that of each test."""
    min_trials: Count = 3
    """Finished trials before any trial is stopped."""
    min_folds: Count = 1
    """Folds of a trial before it can be stopped."""
    tau: Positive = 0.016
    """Of ``paired``: assumed standard deviation of a fold's difference between two trials that
    comes from training alone, in nats. Finished trials replace it by an estimate."""
    tau_trials: Count = 10
    """Finished trials that count as much as the assumed ``tau``."""

    @model_validator(mode="before")
    @classmethod
    def _rule_alone(cls, data: Any) -> Any:
        return {"rule": data} if isinstance(data, str) else data


NO_PRUNING: Final = PruneConfig(rule="none")
