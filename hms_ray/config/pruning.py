"""When a trial is stopped before all of its folds are trained."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, get_args

from pydantic import Field, model_validator

from hms_ray.config.eeg_recipes import Count, Frozen, Positive
from hms_ray.errors import ConfigError

Rule = Literal["paired", "median", "successive_halving", "wilcoxon", "none"]
RULES: Final[tuple[Rule, ...]] = get_args(Rule)


class PruneConfig(Frozen):
    """The rule that stops trials between folds; ``prune: none`` is short for ``rule: none``."""

    rule: Rule = "paired"
    """``paired``: a one-sided test of the difference to a finished trial, the best one in the
    remaining folds, on the folds that both have. ``median``: worse than the median of the
    finished trials after as many folds. ``successive_halving``: not in the better half of the
    trials after 1, 2, 4, ... folds. ``wilcoxon``: Optuna's signed-rank test of the folds.
    ``none``: nothing is stopped."""
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
    tau_trials: Count = 1
    """Finished trials that count as much as the assumed ``tau``: after ten, it has a tenth of
    the weight."""

    @property
    def earliest_stop(self) -> int:
        """Fewest folds of a trial after which the rule can stop it; of ``none``: 0.

        The least one-sided p-value of the signed-rank test of k folds is 2^-k. Successive
        halving compares after 1, 2, 4, ... folds.
        """
        if self.rule == "none":
            return 0
        least = 1
        if self.rule == "wilcoxon":
            least = next(k for k in range(2, 1100) if 0.5**k < self.level)
        if self.rule == "successive_halving":
            least = 1 << (self.min_folds - 1).bit_length()
        return max(least, self.min_folds)

    def require_effect(self, n_folds: int) -> None:
        """Checks that the rule can stop a trial before its last fold.

        Raises:
            ConfigError: if it never can.
        """
        earliest = self.earliest_stop
        if earliest < n_folds:
            return
        fix = f"Set prune.min_folds to at most {n_folds - 1}, or prune: none."
        got = f"{self.rule} with min_folds {self.min_folds}"
        if self.rule == "wilcoxon":
            least = 0.5 ** (n_folds - 1)
            got += f" and level {self.level:g}"
            fix = f"Set prune.level above {least:g}, its least p-value after {n_folds - 1} folds, "
            fix += "or use prune: paired."
        raise ConfigError(
            f"prune must be able to stop a trial before the last of {n_folds} folds",
            got=f"{got}, after {earliest} folds at the earliest",
            where="prune",
            fix=fix,
        )

    @model_validator(mode="before")
    @classmethod
    def _rule_alone(cls, data: Any) -> Any:
        return {"rule": data} if isinstance(data, str) else data


NO_PRUNING: Final = PruneConfig(rule="none")
