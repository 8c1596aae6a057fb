"""Fitted methods as JSON: invalid fields are refused, and the error names the form."""

from typing import Any

import numpy as np
import pytest

from hms_ray.ensemble.methods.registry import fitted_from_json
from hms_ray.errors import PredictionError

EQUAL = {"form": "mean", "weights": [0.5, 0.5], "facts": {}}
LOGS = {
    "form": "log_linear",
    "kind": "shared",
    "weights": [[0.5, -0.5]] * 6,
    "biases": [0] * 6,
    "context": [[0] * 7] * 6,
    "floor": 1e-4,
    "gap": 1e-9,
}
CORRECTED = {"form": "recalibrated", "member": EQUAL, "biases": [0] * 6, "temperature": 1}
AVERAGE = {"form": "average", "members": [EQUAL, LOGS], "weights": [0.5, 0.5]}


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (None, "a fitted method must be a mapping, got NoneType"),
        ({"form": "tree"}, "form must be one of mean, .*, got tree, in form tree"),
        ({"form": "mean", "facts": {}}, "must have all its fields, got no 'weights', in form mean"),
        ({**EQUAL, "weights": ["much"]}, "made of numbers, got could not convert string"),
        (
            {**LOGS, "weights": [[1, 2]]},
            r"weights .* finite numbers of shape \(6, models\), got \(1, 2\)",
        ),
        (
            {**EQUAL, "weights": [np.nan]},
            r"of shape \(models\), got a number that is not finite, in form mean",
        ),
        ({**EQUAL, "weights": [0.5, 0.4]}, r"at least 0 and sum to 1, got .* of sum 0\.9, in form"),
        (
            {**EQUAL, "weights": [1.5, -0.5]},
            "weights of a fitted method must be at least 0, got -0.5",
        ),
        ({**EQUAL, "weights": []}, "a fitted method must have weights, got none, in form mean"),
        ({**EQUAL, "facts": [1]}, "facts must be a mapping, got list, in form mean"),
        (
            {**EQUAL, "facts": {"gap": "x"}},
            "gap of a fitted method must be a finite number, got x, in",
        ),
        ({**LOGS, "gap": np.inf}, "gap of a fitted method must be a finite number, got inf"),
        ({**LOGS, "gap": None}, "gap of a fitted method must be a finite number, in form log"),
        (
            {**LOGS, "kind": "all"},
            "must be one of shared, context, got all, in form log",
        ),
        ({**LOGS, "floor": 0}, "floor .* must be a finite number and above 0 and below 1, got 0,"),
        ({**LOGS, "floor": 1.0}, "floor .* above 0 and below 1, got 1.0, in form log_linear"),
        ({**LOGS, "floor": np.nan}, "floor of a fitted method must be a finite number .*, got nan"),
        ({**LOGS, "gap": True}, "gap of a fitted method must be a finite number, got True"),
        (
            {**LOGS, "biases": [np.inf] * 6},
            r"biases .* shape \(6\), got a number that is not finite",
        ),
        ({**LOGS, "context": [[0] * 6] * 6}, r"context .* shape \(6, 7\), got \(6, 6\)"),
        ({**CORRECTED, "biases": [0, 0]}, r"biases .* of shape \(6\), got \(2,\), in form recalib"),
        (
            {**CORRECTED, "temperature": 0},
            "temperature .* and above 0, got 0, in form recalibrated",
        ),
        (
            {**CORRECTED, "member": {**LOGS, "floor": 2}},
            "floor .* got 2, in form log_linear in form recalibrated$",
        ),
        (
            {**CORRECTED, "member": "mean"},
            "a fitted method must be a mapping, got str, in form recal",
        ),
        (
            {**AVERAGE, "members": EQUAL},
            "members of a fitted method must be a list of methods, got dict",
        ),
        (
            {**AVERAGE, "members": []},
            "list of methods, got an empty list, in form average",
        ),
        ({**AVERAGE, "members": [EQUAL]}, "one number for each of 1 models, .*, in form average"),
        ({**AVERAGE, "weights": [2, -1]}, "weights of a fitted method must be at least 0, got -1"),
    ],
)
def test_invalid_fields_are_refused(described: Any, message: str) -> None:
    with pytest.raises(PredictionError, match=message):
        fitted_from_json(described)


def test_valid_descriptions_are_accepted() -> None:
    models = np.full((2, 3, 6), 1 / 6)
    for described in (EQUAL, LOGS, CORRECTED, AVERAGE):
        np.testing.assert_allclose(fitted_from_json(described).predict(models), models[0])
