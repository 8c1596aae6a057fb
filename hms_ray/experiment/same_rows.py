"""Searched vote thresholds that select the same rows, so that trials repeat each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.space import Parameter, Space
from hms_ray.config.values import chosen_value
from hms_ray.text import shortened_list
from hms_ray.train.stage_rows import Targets, Votes, good_rows

Selected = NDArray[np.bool_]
THRESHOLD: Final = "training.stage_threshold"
UNANIMOUS: Final = "training.unanimous_from"


def same_rows_notes(space: Space, rows: pd.DataFrame) -> list[str]:
    """Which searched values of a vote threshold select the same rows, in sentences.

    Args:
        space: what will be searched.
        rows: training rows with votes and targets.

    Returns:
        One sentence per group of values, of ``training.stage_threshold`` and
        ``training.unanimous_from``; empty if no two values are the same.
    """
    votes, targets = rows["total_votes"].to_numpy(), rows[list(TARGET_COLUMNS)].to_numpy()
    # Rows differ in two numbers only, whatever their number.
    pairs = np.unique(np.stack([votes, targets.max(axis=1) == 1]).astype(np.int64), axis=1)
    notes = []
    for path, selected in _selections(space, pairs[0], pairs[1:].T.astype(np.float64)):
        groups: dict[bytes, list[Any]] = {}
        for name, value in _searched(space.parameters[path]).items():
            groups.setdefault(selected(value).tobytes(), []).append((name, value))
        notes += [_note(path, same, pairs[0]) for same in groups.values() if len(same) > 1]
    return notes


def _selections(
    space: Space, votes: Votes, targets: Targets
) -> list[tuple[str, Callable[[Any], Selected]]]:
    """Searched path of a threshold -> which rows one of its values makes good ones.

    If both are searched, each is compared by itself: values that are then the same are so with
    every value of the other one.
    """
    training, found = space.experiment.training, list[tuple[str, Callable[[Any], Selected]]]()
    if THRESHOLD in space.parameters:
        unanimous = None if UNANIMOUS in space.parameters else training.unanimous_from
        found.append((THRESHOLD, lambda value: good_rows(value, unanimous, votes, targets)))
    if UNANIMOUS in space.parameters:
        never = int(votes.max()) + 1
        threshold = never if THRESHOLD in space.parameters else training.stage_threshold
        found.append((UNANIMOUS, lambda value: good_rows(threshold, value, votes, targets)))
    return found


def _searched(parameter: Parameter) -> Mapping[str, Any]:
    """Text or label of every value -> the value."""
    if parameter.values is not None:
        return {str(name): chosen_value(parameter, name) for name in parameter.values}
    low, high = parameter.bounds or (0, 0)
    return {str(n): n for n in range(int(low), int(high) + 1, int(parameter.step or 1))}


def _note(path: str, same: list[tuple[str, Any]], votes: Votes) -> str:
    names = shortened_list([name for name, _ in same], 8)
    reason = ""
    values = [value for _, value in same if value is not None]
    if path == THRESHOLD and not ((votes >= min(values)) & (votes < max(values))).any():
        first, last = min(values), max(values) - 1
        span = {0: f"{first}", 1: f"{first} or {last}"}.get(last - first, f"{first} to {last}")
        reason = f", since no row has {span} votes"
    return (
        f"warning: {path}: the values {names} select the same rows{reason}. Trials that differ in "
        "it alone repeat each other: search one of these values."
    )
