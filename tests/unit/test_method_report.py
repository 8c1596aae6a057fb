"""Ways to combine models side by side, on simulated predictions."""

import numpy as np
import pytest

from hms_ray.errors import PredictionError
from hms_ray.evaluate.choice import choose_pool, nested_choice_estimate
from hms_ray.evaluate.honest import nested_blend, paired_difference
from hms_ray.evaluate.method_report import MethodReport, method_report
from hms_ray.evaluate.metric import kl_divergence, kl_rows
from hms_ray.evaluate.pools.arithmetic import Fixed
from hms_ray.evaluate.pools.catalogue import all_pools, named_pools
from hms_ray.report.method_table import render_methods

NAMES = ["first", "second", "third"]
POOLS = named_pools(["equal", "simplex", "log_linear"])


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    """Three models of 240 rows of 40 patients; the first is the best, the last poor."""
    generator = np.random.default_rng(0)
    scores = 1.5 * generator.normal(size=(240, 6))
    truth = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    noisy = [scores + size * generator.normal(size=(240, 6)) for size in (0.5, 0.7, 2.0)]
    models = np.exp(noisy) / np.exp(noisy).sum(axis=2, keepdims=True)
    return {
        "targets": truth,
        "probabilities": models,
        "patients": np.arange(240) // 6,
        "total_votes": generator.choice([2, 5, 12], size=240),
    }


@pytest.fixture(scope="module")
def chosen(data: dict[str, np.ndarray]) -> MethodReport:
    return method_report(**data, pools=POOLS, n_repeats=2)


def test_a_given_method_is_fitted_and_scored_on_other_patients(
    data: dict[str, np.ndarray],
) -> None:
    report = method_report(**data, pools=POOLS, method="simplex", n_repeats=2, seed=3)
    first, second = (
        nested_blend(data["targets"], data["probabilities"], data["patients"], seed=seed)
        for seed in (3, 4)
    )
    np.testing.assert_allclose(report.nested, first.probabilities, atol=1e-12)
    expected = np.mean(
        [kl_divergence(data["targets"], nested.probabilities) for nested in (first, second)]
    )
    assert report.nested_scores["kl_all"] == pytest.approx(expected)
    rated = report.choice.rated[1]
    assert rated.in_sample == pytest.approx(kl_divergence(data["targets"], report.in_sample))
    assert rated.optimism > 0
    assert (report.method, report.worth, report.worth_to_others) == ("simplex", None, {})
    assert report.to_json()["choosing"] is None
    assert report.to_json()["chosen_by_nested_kl"] is False


def test_methods_are_compared_with_the_best_single_model_and_with_equal_weights(
    data: dict[str, np.ndarray], chosen: MethodReport
) -> None:
    assert chosen.best_single == 0
    seeds = {"reference": "simplex", "seeds": (0, 1)}
    single = kl_rows(data["targets"], data["probabilities"][0])
    expected = choose_pool(**data, candidates=POOLS, **seeds, alternatives={"x": single})
    for rated, other in zip(chosen.choice.rated, expected.rated, strict=True):
        assert rated.to_others["best single"] == other.to_others["x"]
        assert rated.to_reference == other.to_reference
    equal = chosen.choice.rated[0]
    assert equal.to_others["equal"].mean == pytest.approx(0, abs=1e-12)
    simplex = chosen.choice.rated[1].to_others["equal"]
    assert simplex.verdict == "better"
    assert chosen.choice.to_json()["candidates"][1]["minus_others"]["equal"]["mean"] == simplex.mean


def test_a_chosen_method_tells_what_choosing_is_worth(
    data: dict[str, np.ndarray], chosen: MethodReport
) -> None:
    assert chosen.method == chosen.choice.name
    expected = nested_choice_estimate(**data, candidates=POOLS, reference="simplex")
    np.testing.assert_array_equal(chosen.nested, expected.probabilities)
    assert chosen.worth is not None
    assert chosen.worth.nested == expected.nested
    rows = kl_rows(data["targets"], chosen.nested)
    assert chosen.nested_scores["kl_all"] == pytest.approx(rows.mean())
    single = kl_rows(data["targets"], data["probabilities"][0])
    difference = paired_difference(rows, single, data["patients"])
    found = chosen.worth_to_others["best single"]
    assert (found.mean, found.high) == pytest.approx((difference.mean, difference.high))
    told = chosen.to_json()
    assert told["chosen_by_nested_kl"] is True
    assert set(told["choosing"]["minus_others"]) == {"best single", "equal"}
    assert told["rated"]["chosen_on_the_scored_rows"] is True


def test_the_table_fits_a_terminal_and_tells_what_was_chosen_on_what(
    data: dict[str, np.ndarray], chosen: MethodReport
) -> None:
    text = render_methods(chosen, NAMES)
    said = " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    assert said.startswith("Ways to combine 3 models, fitted and scored on all rows: 240 of 40 p")
    assert "Best single model: first." in said
    assert f"* {chosen.method}: chosen on the scored rows, the simplest within one" in said
    assert chosen.worth is not None
    assert f"Choosing itself, on other patients: {chosen.worth.nested.mean:.4f};" in said
    assert "its own nested figure is optimistic by what choosing gains" in said
    marked = [line for line in text.splitlines() if line.startswith("*")]
    assert marked[0].split()[1] == chosen.method
    for rated in chosen.choice.rated:
        assert f"{rated.in_sample:.4f} {rated.nested:.4f} {rated.optimism:.4f}" in said
    asked = render_methods(
        method_report(**data, pools=POOLS, method="equal", objective="kl_4", n_repeats=1), NAMES
    )
    assert "* equal: the method that was asked for." in asked
    assert "rows of >= 4 votes" in asked
    assert "chosen" not in asked


def test_a_tie_is_called_a_tie(data: dict[str, np.ndarray]) -> None:
    same = dict(data, probabilities=data["probabilities"][[0, 0]])
    text = render_methods(
        method_report(**same, pools=POOLS, method="simplex", n_repeats=1), ["a", "b"]
    )
    (line,) = [line for line in text.splitlines() if line.startswith("simplex")]
    assert line.split() == ["simplex", "+0.0000+-0.0000", "t", "+0.0000+-0.0000", "t", "-"]


def test_all_names_of_methods_fit_80_columns(data: dict[str, np.ndarray]) -> None:
    pools = [Fixed([0.2, 0.3, 0.5], name) for name in all_pools(["a", "b", "c"])]
    text = render_methods(method_report(**data, pools=pools, n_repeats=1), NAMES)
    assert max(map(len, text.splitlines())) <= 80


def test_given_weights_are_used_as_they_are(data: dict[str, np.ndarray]) -> None:
    pools = [*POOLS, Fixed([0.5, 0.5, 0.0], "halves")]
    report = method_report(**data, pools=pools, method="halves", n_repeats=1)
    np.testing.assert_allclose(report.nested, report.in_sample, atol=1e-15)
    np.testing.assert_allclose(report.nested, data["probabilities"][:2].mean(axis=0))
    assert report.choice.rated[3].optimism == pytest.approx(0, abs=1e-12)
    wrong = [*POOLS, Fixed([0.5, 0.6, 0.0], "halves")]
    with pytest.raises(PredictionError, match="weights must be at least 0 and sum to 1"):
        method_report(**data, pools=wrong, method="halves", n_repeats=1)
