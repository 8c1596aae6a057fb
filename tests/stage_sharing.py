"""Experiments of several stages on a small competition folder, and what to compare."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hms_ray.config.experiment import Experiment
from hms_ray.storage.fold_store import FoldStore, StoredFold
from hms_ray.train.checkpoint import load_weights
from hms_ray.train.history import MEASURED
from hms_ray.train.step import Step

NOISY = {"name": "noisy", "rows": "below_threshold", "epochs": 1, "learning_rate": 0.01}
GOOD = {
    "name": "good",
    "rows": "at_least_threshold",
    "epochs": 2,
    "loss": "kl_log_votes",
    "augment": {"cutmix": {"probability": 1.0}},
}


def staged(*stages: dict[str, Any], normalisation: str = "global", **training: Any) -> Experiment:
    """An experiment of these stages, with batch statistics, dropout and drop path."""
    return Experiment.model_validate(
        {
            "data": {"n_folds": 3},
            "input": {"downsample": [10, 10], "normalisation": normalisation},
            "model": {"name": "test_efficientnet", "pretrained": False},
            "training": {"batch_size": 4, "stage_threshold": 8, "stages": stages, **training},
        }
    )


def without_times(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: value for k, value in line.items() if k not in MEASURED} for line in history]


def assert_equal_folds(first: StoredFold, second: StoredFold) -> None:
    """Equal bit for bit in all but times and where stages came from."""
    pd.testing.assert_frame_equal(first.oof, second.oof, check_exact=True)
    assert without_times(first.record["history"]) == without_times(second.record["history"])
    for name in ("made_from", "resolved", "normalisation", "precision", "optimistic"):
        assert first.record[name] == second.record[name]
    weights, others = load_weights(first.weights), load_weights(second.weights)
    assert weights.keys() == others.keys()
    assert all(torch.equal(value, others[name]) for name, value in weights.items())
    # Predictions that are all alike would prove little.
    assert first.oof.iloc[:, -1].std() > 1e-4


def stored_keys(results: Path) -> set[str]:
    return {file.parent.name for file in FoldStore(results).root.glob("*/*/record.json")}


@contextmanager
def counted_steps(stop_after: int | None = None) -> Iterator[list[int]]:
    """Counts the optimiser steps of this process, and stops at one as Ctrl-C would."""
    count, call = [0], Step.__call__

    def counting(self: Step, *arguments: Any, **options: Any) -> Any:
        if count[0] == stop_after:
            raise KeyboardInterrupt
        count[0] += 1
        return call(self, *arguments, **options)

    Step.__call__ = counting  # type: ignore[method-assign]
    try:
        yield count
    finally:
        Step.__call__ = call  # type: ignore[method-assign]
