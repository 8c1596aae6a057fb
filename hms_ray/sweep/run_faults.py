"""The first fault that ends a run, such as a full disk; no failure of a trial."""

from __future__ import annotations

from typing import Any

from ray.tune import Callback


class RunFaults(Callback):
    """Ends a run at its first fault, whichever thread reports it.

    Tune would count an error of its searcher as the failure of a trial, and call the searcher
    again; it ends at once at an error of a callback's step.

    Attributes:
        first: the fault that is reported; those that follow from it are not.
    """

    def __init__(self) -> None:
        self.first: Exception | None = None

    def add(self, fault: Exception) -> None:
        """Reports a fault."""
        if self.first is None:
            self.first = fault

    def check(self) -> None:
        """Raises the first fault, if there is one."""
        if self.first is not None:
            raise self.first

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called by Tune several times a second."""
        self.check()
