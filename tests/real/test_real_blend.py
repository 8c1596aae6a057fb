"""Blends of public models' out-of-fold predictions on real rows.

Expected nested KL of the twelve models of the sample: 0.4738 on all rows and 0.2182 on rows
with >= 10 votes; equal weights 0.4920 and 0.2447. Other samples skip these numbers.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hms_ray.blend.fit_command import blend
from hms_ray.blend.settings import Settings
from hms_ray.config.space import Objective
from hms_ray.display.blend_table import render_blend
from hms_ray.ensemble.methods.arithmetic import FittedMean
from hms_ray.ensemble.report import blend_report
from hms_ray.ensemble.result import BlendReport
from hms_ray.evaluate.intervals import paired_difference, patient_bootstrap
from hms_ray.evaluate.metric import kl_rows
from tests.oof_sample import Sample

pytestmark = pytest.mark.real

N_MODELS = 12


@pytest.fixture(scope="module")
def reports(sample: Sample) -> dict[str, BlendReport]:
    objectives: tuple[Objective, ...] = ("kl_all", "kl_10")
    return {
        objective: blend_report(
            sample.targets,
            sample.models,
            sample.names,
            sample.patients,
            sample.votes,
            objective=objective,
        )
        for objective in objectives
    }


EXPECTED = {
    # objective: equal weights, simplex nested by patient, simplex in sample
    "kl_all": (0.4920, 0.4738, 0.4718),
    "kl_10": (0.2447, 0.2182, 0.2171),
}


@pytest.mark.parametrize("objective", EXPECTED)
def test_certificate_and_order_of_methods(reports: dict[str, BlendReport], objective: str) -> None:
    report = reports[objective]
    print(f"\n{render_blend(report)}")
    equal, single, simplex = report.selection.candidates
    fitted = report.fitted
    assert isinstance(fitted, FittedMean)
    assert fitted.facts["gap"] <= 1e-9
    assert fitted.weights.sum() == pytest.approx(1)
    assert simplex.in_sample == pytest.approx(fitted.facts["objective"], abs=1e-8)
    assert simplex.in_sample < simplex.nested < min(equal.nested, single.nested)
    assert {comparison.verdict for comparison in report.nested.comparisons} == {"better"}


@pytest.mark.parametrize("objective", EXPECTED)
def test_published_scores_of_the_twelve_models(
    reports: dict[str, BlendReport], objective: str
) -> None:
    report = reports[objective]
    if len(report.names) != N_MODELS:
        pytest.skip(f"the numbers are those of {N_MODELS} models, the sample has others")
    equal, _, simplex = report.selection.candidates
    expected_equal, expected_nested, expected_inside = EXPECTED[objective]
    assert equal.nested == pytest.approx(expected_equal, abs=5e-5)
    assert simplex.in_sample == pytest.approx(expected_inside, abs=2e-4)
    # The mean of five splits; other splits of patients move it by about 0.0005.
    assert simplex.nested == pytest.approx(expected_nested, abs=1e-3)


def test_bootstrap_agrees_with_the_formula(sample: Sample) -> None:
    good = sample.votes >= 10
    first, second = (kl_rows(sample.targets, model)[good] for model in sample.models[:2])
    patients = sample.patients[good]
    formula = paired_difference(first, second, patients)
    (drawn,) = patient_bootstrap([first - second], patients, np.random.default_rng(0))
    width = formula.high - formula.low
    assert abs(drawn.low - formula.low) < 0.1 * width
    assert abs(drawn.high - formula.high) < 0.1 * width


def test_files_and_arrays_give_the_same_blend(
    sample: Sample, reports: dict[str, BlendReport], real_data: Path, tmp_path: Path
) -> None:
    files = [real_data / "oof" / f"{name}.parquet" for name in sample.names]
    targets = str(real_data / "oof" / "targets.parquet")
    text = blend(files, tmp_path, Settings(fit_on="kl_10", targets=targets))
    stored = json.loads((tmp_path / "blend" / "blend.json").read_text())
    report = reports["kl_10"]
    assert stored["nested"] == pytest.approx(report.nested.scores, abs=1e-6)
    assert report.weights is not None
    assert list(stored["weights"].values()) == pytest.approx(report.weights.tolist(), abs=1e-4)
    assert "unknown number of votes" in " ".join(text.split())
