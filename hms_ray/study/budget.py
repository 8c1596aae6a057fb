"""Hours that a study has used, over all its runs, and the limits of its budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hms_ray.config.space import Space
from hms_ray.display.run_cost import RunCost


def reached_limit(space: Space, costs: Sequence[RunCost]) -> str | None:
    """The limit of hours that is reached, as text for the user; None if there is none.

    Args:
        space: has the budget, and the devices of a worker group.
        costs: of all runs, the current one included; those of confirming runs do not count.
    """
    costs = [cost for cost in costs if cost.work == "search"]
    used = {
        "hours": sum(cost.seconds for cost in costs) / 3600,
        "device_hours": sum(cost.training_s for cost in costs) / 3600 * space.resources.devices,
    }
    for name, hours in used.items():
        limit = getattr(space.budget, name)
        if limit is not None and hours >= limit:
            return (
                f"budget.{name} is used up: {hours:.3g} of {limit:g}; the same command with a "
                f"larger one, --set budget.{name}=N, continues"
            )
    return None


class HoursClock:
    """Watches the hours of a study while it runs.

    Failed trials that are retried on request are trained even if a limit is reached: it had room
    for them before.

    Args:
        space: see ``reached_limit``.
        earlier: costs of earlier runs.
        current: the cost of this run so far.
    """

    def __init__(
        self, space: Space, earlier: Sequence[RunCost], current: Callable[[], RunCost]
    ) -> None:
        self._space, self._earlier, self._current = space, list(earlier), current
        budget = space.budget
        self._limited = budget.hours is not None or budget.device_hours is not None

    def reached(self, n_retried: int = 0) -> str | None:
        """The limit that ends the search, see ``reached_limit``; None while trials are retried.

        Args:
            n_retried: failed trials still to be proposed again.
        """
        if not self._limited or n_retried:
            return None
        return reached_limit(self._space, [*self._earlier, self._current()])

    def n_missing(self, n_finished: int, n_retried: int) -> int:
        """Trials still to be trained.

        Args:
            n_finished: of all runs.
            n_retried: failed trials to be trained again.
        """
        if self.reached() is not None:
            return n_retried
        return max(0, self._space.budget.trials - n_finished, n_retried)
