"""SciPy's SLSQP with exact gradients: the reference of blend weights."""

import numpy as np
from scipy import optimize


def slsqp_weights(shares: np.ndarray, columns: np.ndarray, tolerance: float) -> np.ndarray:
    """(M,) weights that minimise ``-shares @ log(w @ columns)``; columns are (M, R)."""
    found = optimize.minimize(
        lambda w: -float(shares @ np.log(w @ columns)),
        np.full(len(columns), 1 / len(columns)),
        jac=lambda w: -columns @ (shares / (w @ columns)),
        bounds=[(0, 1)] * len(columns),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": tolerance, "maxiter": 1000},
    )
    weights: np.ndarray = np.maximum(found.x, 0)
    return weights / weights.sum()
