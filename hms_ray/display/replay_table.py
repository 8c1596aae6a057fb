"""What pruning rules would have saved and lost, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hms_ray.display.tables import Column, Table, to_text


def render_replay(rules: Sequence[Mapping[str, Any]], score: str, n_trials: int) -> str:
    """One row per rule: medians over the orders with the smallest and largest value.

    Args:
        rules: of each rule ``rule``, and by order ``folds`` (share), ``hours`` and ``lost``
            (nats), and ``best_pruned``, the share of orders.
        score: name of the score that was compared.
        n_trials: trials with all folds.
    """
    n_orders = len(rules[0]["folds"]) if rules else 0
    columns = (
        Column("rule", [str(one["rule"]) for one in rules], right=False),
        Column("folds trained", [_spread(100 * one["folds"], "{:.0f}%") for one in rules]),
        Column("hours saved", [_spread(one["hours"], "{:.2f}") for one in rules]),
        Column(f"{score} lost", [_spread(one["lost"], "{:.4f}") for one in rules]),
        Column("best pruned", [f"{one['best_pruned']:.0%}" for one in rules]),
    )
    notes = (
        f"{n_trials} trials in {n_orders} random orders: median (smallest to largest).",
        f"{score} lost: of the chosen trial minus the best one, on all folds.",
        "best pruned: share of orders in which the best trial was stopped.",
        "The sampler is not replayed: it would have drawn other trials.",
    )
    return to_text(Table("", columns, notes))


def _spread(values: Any, form: str) -> str:
    found = np.asarray(values, float)
    middle, low, high = (form.format(one(found)) for one in (np.median, np.min, np.max))
    return middle if low == high else f"{middle} ({low} to {high})"
