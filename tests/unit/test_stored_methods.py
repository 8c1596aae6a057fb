"""Fitted methods as JSON: invalid fields are refused, and the error names the form."""

from typing import Any

import numpy as np
import pytest

from hms_ray.ensemble.methods.combined import fitted_from_json
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
        (None, "must be a mapping with a form of mean, log_linear, .*, got NoneType"),
        ({"form": "tree"}, "form of mean, log_linear, recalibrated, average, got tree"),
        ({"form": ["mean"]}, "form of mean, .*, got .'mean'"),
        ({"form": "mean", "facts": {}}, "weights of .* required, got none, in form mean"),
        ({**EQUAL, "weights": ["much"]}, "weights .* made of numbers, got could not convert"),
        ({**EQUAL, "weights": [np.nan]}, r"shape \(models\), got a number that is not finite, in"),
        ({**EQUAL, "weights": [0.5, 0.4]}, r"sum to 1, got .* of sum 0\.9, in form mean"),
        ({**EQUAL, "weights": [1.5, -0.5]}, "weights must be at least 0 .* from -0.5 to 1.5"),
        ({**EQUAL, "weights": []}, r"shape \(models\), got \(0,\), in form mean"),
        ({**EQUAL, "facts": [1]}, "facts .* valid dictionary, got .1., in form mean"),
        ({**EQUAL, "facts": {"gap": "x"}}, "facts.gap .* valid number, got x, in form mean"),
        (
            {**LOGS, "weights": [[1, 2]]},
            r"weights .* shape \(6, models\), got \(1, 2\), in form log",
        ),
        ({**LOGS, "gap": np.inf}, "gap .* finite number, got inf"),
        ({**LOGS, "gap": None}, "gap .* valid number, in form log_linear"),
        ({**LOGS, "gap": True}, "gap .* valid number, got True"),
        ({**LOGS, "kind": "all"}, "kind .* 'shared' or 'context', got all, in form log_linear"),
        ({**LOGS, "floor": 0}, "floor .* greater than 0, got 0, in form log_linear"),
        ({**LOGS, "floor": 1.0}, "floor .* less than 1, got 1.0, in form log_linear"),
        ({**LOGS, "floor": np.nan}, "floor .* finite number, got nan"),
        ({**LOGS, "biases": [np.inf] * 6}, r"biases .* \(6\), got a number that is not finite"),
        ({**LOGS, "context": [[0] * 6] * 6}, r"context .* shape \(6, 7\), got \(6, 6\)"),
        ({**CORRECTED, "biases": [0, 0]}, r"biases .* \(6\), got \(2,\), in form recalibrated"),
        ({**CORRECTED, "temperature": 0}, "temperature .* than 0, got 0, in form recalibrated"),
        (
            {**CORRECTED, "member": {**LOGS, "floor": 2}},
            "floor .* got 2, in form log_linear in form recalibrated$",
        ),
        ({**CORRECTED, "member": "mean"}, "must be a mapping .*, got str, in form recalibrated"),
        ({**AVERAGE, "members": EQUAL}, "members .* valid tuple, got .*, in form average"),
        ({**AVERAGE, "members": []}, "members .* at least 1 item"),
        ({**AVERAGE, "members": [EQUAL]}, "one number for each of 1 models, .*, in form average"),
        ({**AVERAGE, "weights": [2, -1]}, "weights must be at least 0 .*, got values from -1"),
    ],
)
def test_invalid_fields_are_refused(described: Any, message: str) -> None:
    with pytest.raises(PredictionError, match=message):
        fitted_from_json(described)


def test_valid_descriptions_are_accepted() -> None:
    models = np.full((2, 3, 6), 1 / 6)
    for described in (EQUAL, LOGS, CORRECTED, AVERAGE):
        np.testing.assert_allclose(fitted_from_json(described).predict(models), models[0])
