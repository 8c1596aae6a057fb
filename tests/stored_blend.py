"""A ``blend.json`` with a method fitted on random rows, for trained studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from hms_ray.ensemble.methods.registry import named_methods
from tests.trained_study import TrainedStudy


def shares(seed: int, n: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(6), size=n)


def fitted(method: str, n_models: int) -> Any:
    """A method fitted on random rows."""
    (chosen,) = named_methods([method])
    models = np.stack([shares(seed, 60) for seed in range(n_models)])
    targets = 0.5 * models[0] + 0.5 * models.mean(axis=0)
    return chosen.fit(targets, models, patients=np.arange(60) // 5)


def of_study(study: TrainedStudy) -> dict[str, Any]:
    keys = {str(fold): key for fold, key in study.folder.finished_trial().keys.items()}
    return {"name": f"{study.name} 0000", "study": study.name, "trial": 0, "keys": keys}


def write_blend(
    file: Path, members: list[dict[str, Any]], method: str = "simplex", **others: Any
) -> Any:
    fitted_method = fitted(method, len(members))
    described = {
        "method": method,
        "fitted": fitted_method.to_json(),
        "members": members,
        "rows_fingerprint": "0" * 64,
        **others,
    }
    file.write_text(json.dumps(described))
    return fitted_method
