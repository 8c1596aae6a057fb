"""Small ladders without training: noisy views of known probabilities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.evaluate.oof import make_oof, probabilities_of
from hms_ray.ladder.result import StepResult

ORACLES = {
    "perfect": {"kl_all": 0.30, "kl_4": 0.15, "kl_10": 0.10},
    "tier_unknown": {"kl_all": 0.35, "kl_4": 0.20, "kl_10": 0.12},
    "class_mean": {"kl_all": 1.30, "kl_4": 1.00, "kl_10": 0.90},
}
ABOUT: dict[str, Any] = {
    "data": "simulated",
    "simulated": True,
    "simulator": {"profile": "small", "seed": 0, "patients": 40, "controls": []},
    "scale": "small",
    "command": "hms-ray ladder --data simulated --scale small",
    "seed": 42,
    "machine": {"cpu": "two cores", "memory_gb": 8},
    "date": "2026-11-25",
    "floors": ORACLES,
}


CONTROL: dict[str, Any] = {
    **ABOUT,
    "simulator": {**ABOUT["simulator"], "controls": ["independent_raters"]},
}


def ladder_rows(n_patients: int = 40, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows with drawn votes, and the logits (n, 6) that they were drawn from."""
    generator = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), generator.integers(2, 12, size=n_patients))
    n_rows = len(patients)
    logits = 1.5 * generator.normal(size=(n_patients, 6))[patients]
    logits = logits + generator.normal(size=(n_rows, 6))
    votes = generator.choice([1, 3, 4, 5, 12, 15], size=n_rows)
    targets = generator.multinomial(votes, softmax(logits)) / votes[:, None]
    rows = pd.DataFrame(
        {
            "row_id": [f"{number}-0" for number in range(n_rows)],
            "eeg_id": np.arange(n_rows),
            "patient_id": patients + 1000,
            "fold": patients % 5,
            "total_votes": votes,
        }
    )
    rows[list(TARGET_COLUMNS)] = targets
    return rows, logits


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def step(
    name: str, rows: pd.DataFrame, probabilities: np.ndarray, before: str | None, **changes: Any
) -> StepResult:
    result = StepResult(
        name=name,
        chain="published",
        change=f"what {name} changes",
        before=before,
        kind="experiment",
        oof=make_oof(rows, rows["fold"].to_numpy(), probabilities),
        optimistic=False,
        weights=None,
        fold_minutes=2.0,
        saved_minutes=0.0,
        published_cv=None,
        published_lb=None,
    )
    return replace(result, **changes)


def ladder(n_patients: int = 40, seed: int = 0) -> tuple[pd.DataFrame, list[StepResult]]:
    """Six steps: a first one, a near copy (a tie), a gain, a loss, two stages and a blend.

    ``sharp`` differs from ``panels`` only in temperature, so recalibration removes the difference;
    ``two_stages`` has exactly the predictions of ``averaged``.
    """
    rows, logits = ladder_rows(n_patients, seed)
    generator = np.random.default_rng([seed, 1])
    views = [logits + generator.normal(size=logits.shape) for _ in range(3)]
    panels = softmax(views[0])
    almost = softmax(views[0] + 0.02 * generator.normal(size=logits.shape))
    better = softmax((views[0] + views[1] + views[2]) / 3)
    sharp = softmax(2.5 * views[0])
    blend = (panels + better) / 2
    return rows, [
        step(
            "panels",
            rows,
            panels,
            None,
            published_cv=0.7287,
            published_last=0.7914,
            published_lb=0.45,
        ),
        step("copy", rows, almost, "panels", published_cv=0.7324, published_lb=0.46),
        step("averaged", rows, better, "panels", published_cv=0.6290, saved_minutes=0.5),
        step(
            "sharp",
            rows,
            sharp,
            "panels",
            optimistic=True,
            checkpoint="best",
            published_cv=0.6767,
            published_last=0.7154,
        ),
        step(
            "two_stages",
            rows,
            better,
            "averaged",
            published_cv=0.4142,
            published_last=0.4572,
            published_lb=0.34,
            published_rows="stage_2",
        ),
        step(
            "blend",
            rows,
            blend,
            "averaged",
            kind="fixed_blend",
            weights={"panels": 0.5, "averaged": 0.5},
            fold_minutes=4.0,
            published_lb=0.42,
        ),
    ]


def probabilities(result: StepResult) -> np.ndarray:
    return probabilities_of(result.oof)
