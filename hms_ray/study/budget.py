"""Hours that a study has used, over all its runs, and the limits of its budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hms_ray.config.space import Space
from hms_ray.report.run_cost import RunCost


def reached_limit(space: Space, costs: Sequence[RunCost]) -> str | None:
    """The limit of hours that is reached, as text for the user; None if there is none.

    Args:
        space: has the budget, and the devices of a worker group.
        costs: of all runs, the current one included.
    """
    resources = space.resources
    devices = resources.workers * (resources.gpus_per_worker or resources.cpus_per_worker)
    used = {
        "hours": sum(cost.seconds for cost in costs) / 3600,
        "device_hours": sum(cost.training_s for cost in costs) / 3600 * devices,
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

    def reached(self) -> str | None:
        """The limit that is reached, see ``reached_limit``."""
        if not self._limited:
            return None
        return reached_limit(self._space, [*self._earlier, self._current()])
