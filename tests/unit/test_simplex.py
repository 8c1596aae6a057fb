from __future__ import annotations

import doctest
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_ray.ensemble import simplex
from hms_ray.ensemble.simplex import (
    TOLERANCE,
    SimplexFit,
    blend_probabilities,
    mixture_problem,
    simplex_weights,
)
from hms_ray.ensemble.solvers.mixture import solve_mixture
from hms_ray.ensemble.solvers.quadratic import minimise_quadratic
from hms_ray.evaluate.metric import kl_divergence

MOST_GAP = 1e-9


def problem(
    n_models: int, n_rows: int = 400, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Targets voted from a truth, and models that see it through noise."""
    generator = np.random.default_rng(seed)
    truth = 2 * generator.normal(size=(n_rows, 6))
    exponentials = np.exp(truth)
    chances = exponentials / exponentials.sum(axis=1, keepdims=True)
    totals = generator.choice([1, 3, 3, 12], size=n_rows)
    votes = generator.multinomial(totals, chances)
    noise = generator.normal(size=(n_models, n_rows, 6))
    spread = generator.uniform(0.5, 1.5, size=(n_models, 1, 1))
    logits = truth * generator.uniform(0.3, 1.2, size=(n_models, 1, 1)) + spread * noise
    exponentials = np.exp(logits)
    models = exponentials / exponentials.sum(axis=2, keepdims=True)
    return votes / votes.sum(axis=1, keepdims=True), models, generator


def with_zeros(models: np.ndarray) -> np.ndarray:
    cut = np.where(models < 0.1, 0.0, models)
    return cut / cut.sum(axis=2, keepdims=True)


def collinear(models: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    mixes = np.einsum("km,mnc->knc", generator.dirichlet(np.ones(len(models)), 8), models)
    return np.concatenate([models, mixes])


def solved(
    targets: np.ndarray,
    models: np.ndarray,
    max_iterations: int = 200,
    start: np.ndarray | None = None,
) -> SimplexFit:
    """``simplex_weights`` with other limits and starts of the solver."""
    shares, columns, entropy = mixture_problem(targets, models)
    weights, gap, steps = solve_mixture(columns, shares, TOLERANCE, max_iterations, start)
    loss = -float(shares @ np.log(weights @ columns[:-1]))
    return SimplexFit(weights, loss - entropy, gap, steps)


def check_fit(targets: np.ndarray, models: np.ndarray) -> None:
    fit = simplex_weights(targets, models)
    assert fit.gap <= MOST_GAP
    assert fit.weights.shape == (len(models),)
    assert fit.weights.min() >= 0
    assert fit.weights.sum() == pytest.approx(1, abs=1e-12)
    blended = kl_divergence(targets, blend_probabilities(models, fit.weights))
    assert fit.objective == pytest.approx(blended, abs=1e-9)


@pytest.mark.parametrize("n_models", [1, 2, 12, 50, 120])
def test_random_problems_are_solved(n_models: int) -> None:
    targets, models, _ = problem(n_models)
    check_fit(targets, models)


@pytest.mark.parametrize("kind", ["duplicates", "nearly", "collinear", "same", "uniform added"])
def test_dependent_models_are_solved(kind: str) -> None:
    targets, models, generator = problem(10)
    variants = {
        "duplicates": np.concatenate([models, models, models]),
        "nearly": np.concatenate([models, models * (1 + 1e-8 * generator.normal(size=(10, 1, 1)))]),
        "collinear": collinear(models, generator),
        "same": np.repeat(models[:1], 5, axis=0),
        "uniform added": np.concatenate([models, np.full((1, 400, 6), 1 / 6)]),
    }
    check_fit(targets, variants[kind])


@pytest.mark.parametrize("kind", ["cut", "one-hot", "one dense", "one row", "three rows", "exact"])
def test_zeros_and_tiny_problems_are_solved(kind: str) -> None:
    targets, models, _ = problem(20)
    one_hot = np.eye(6)[models.argmax(axis=2)]
    variants = {
        "cut": (targets, with_zeros(models)),
        "one-hot": (targets, one_hot),
        "one dense": (targets, np.concatenate([one_hot[:-1], models[-1:]])),
        "one row": (targets[:1], with_zeros(models)[:, :1]),
        "three rows": (targets[:3], one_hot[:, :3]),
        "exact": (targets, np.concatenate([models, targets[None]])),
    }
    check_fit(*variants[kind])


@settings(max_examples=60, deadline=None)
@given(
    n_models=st.integers(1, 40),
    n_rows=st.integers(1, 30),
    concentration=st.sampled_from([0.02, 0.3, 5.0]),
    one_hot=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_any_problem_reaches_the_gap(
    n_models: int, n_rows: int, concentration: float, one_hot: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    models = generator.dirichlet(np.full(6, concentration), size=(n_models, n_rows))
    models = np.eye(6)[models.argmax(axis=2)] if one_hot else models
    targets = np.eye(6)[generator.integers(0, 6, size=n_rows)]
    targets = 0.5 * (targets + targets[::-1])
    check_fit(targets, models)


def test_gap_bounds_the_distance_to_the_optimum() -> None:
    targets, models, _ = problem(8, n_rows=150)
    best = simplex_weights(targets, models).objective
    for steps in range(5):
        early = solved(targets, models, steps)
        assert -1e-12 <= early.objective - best <= early.gap + 1e-12
    assert solved(targets, models, 0).gap > 0.01


@pytest.mark.parametrize("n_models", [12, 50])
def test_start_changes_only_the_number_of_steps(n_models: int) -> None:
    targets, models, generator = problem(n_models)
    fit = simplex_weights(targets, models)
    again = solved(targets, models, start=fit.weights)
    assert again.iterations == 0
    np.testing.assert_allclose(again.weights, fit.weights, atol=1e-12)
    most = simplex_weights(targets[:350], models[:, :350])
    near = solved(targets, models, start=most.weights)
    assert near.iterations < fit.iterations
    for start in (most.weights, np.eye(n_models)[2], generator.dirichlet(np.ones(n_models))):
        found = solved(targets, models, start=start)
        assert found.gap <= MOST_GAP
        assert found.objective == pytest.approx(fit.objective, abs=1e-9)


def test_start_at_a_model_with_zeros_needs_few_steps() -> None:
    targets, models, _ = problem(20)
    cut = with_zeros(models)
    found = solved(targets, cut, start=np.eye(20)[0])
    assert found.gap <= MOST_GAP
    assert found.iterations <= 2 * simplex_weights(targets, cut).iterations + 10


def test_solver_starts_at_equal_weights() -> None:
    targets, models, _ = problem(7)
    start = solved(targets, models, 0)
    np.testing.assert_allclose(start.weights, np.full(7, 1 / 7), rtol=1e-12)
    assert start.objective == pytest.approx(kl_divergence(targets, models.mean(axis=0)), abs=1e-12)


def test_useless_models_have_weight_zero() -> None:
    targets, models, _ = problem(6)
    bad = np.full((3, 400, 6), 1 / 6)
    bad[:, :, 0] += [[0.1], [0.2], [0.3]]
    bad /= bad.sum(axis=2, keepdims=True)
    weights = simplex_weights(targets, np.concatenate([bad, models])).weights
    assert (weights[:3] == 0).all()
    assert np.count_nonzero(weights) <= 6


@pytest.mark.parametrize(
    ("concentration", "n_models", "one_hot", "seed"),
    [(5.0, 8, False, 0), (0.02, 30, True, 1), (5.0, 30, True, 3)],
)
def test_negligible_weights_are_zero(
    concentration: float, n_models: int, one_hot: bool, seed: int
) -> None:
    # Problems that would end with useless weights of 1e-8 and less.
    generator = np.random.default_rng(seed)
    models = generator.dirichlet(np.full(6, concentration), size=(n_models, 3))
    models = np.eye(6)[models.argmax(axis=2)] if one_hot else models
    targets = np.eye(6)[generator.integers(0, 6, size=3)]
    targets = 0.5 * (targets + targets[::-1])
    fit = simplex_weights(targets, models)
    assert fit.weights[fit.weights > 0].min() >= 1e-7 * fit.weights.max()
    assert fit.gap <= MOST_GAP


def test_another_model_never_raises_the_optimum() -> None:
    targets, models, _ = problem(12)
    optima = [simplex_weights(targets, models[:n]).objective for n in range(1, 13)]
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(optima))


def test_row_weights_select_and_weight_rows() -> None:
    targets, models, generator = problem(6)
    mask = generator.random(400) < 0.3
    masked = simplex_weights(targets, models, mask)
    alone = simplex_weights(targets[mask], models[:, mask])
    np.testing.assert_allclose(masked.weights, alone.weights, atol=1e-7)
    assert masked.objective == pytest.approx(alone.objective, abs=1e-12)
    repeats = generator.integers(0, 4, size=400)
    weighted = simplex_weights(targets, models, repeats)
    repeated = simplex_weights(
        np.repeat(targets, repeats, axis=0), np.repeat(models, repeats, axis=1)
    )
    np.testing.assert_allclose(weighted.weights, repeated.weights, atol=1e-7)
    assert weighted.gap <= MOST_GAP


def test_row_weights_of_any_scale() -> None:
    targets, models, generator = problem(6)
    weights = 10.0 ** generator.uniform(-6, 2, size=400)
    fit = simplex_weights(targets, models, weights)
    assert fit.gap <= MOST_GAP
    scaled = simplex_weights(targets, models, 1e9 * weights)
    np.testing.assert_allclose(scaled.weights, fit.weights, atol=1e-6)


def test_float32_predictions_are_taken() -> None:
    targets, models, _ = problem(5)
    exact = simplex_weights(targets, models)
    found = simplex_weights(targets, models.astype(np.float32))
    assert found.gap <= MOST_GAP
    np.testing.assert_allclose(found.weights, exact.weights, atol=1e-4)


def test_equal_weights_blend() -> None:
    _, models, _ = problem(4)
    np.testing.assert_allclose(
        blend_probabilities(models, np.full(4, 0.25)), models.mean(axis=0), atol=1e-15
    )
    np.testing.assert_array_equal(blend_probabilities(models, [0, 1, 0, 0]), models[1])


@pytest.mark.parametrize("seed", range(5))
def test_quadratic_programs_meet_their_optimality_conditions(seed: int) -> None:
    generator = np.random.default_rng(seed)
    root = generator.normal(size=(12, 8))
    hessian, gradient = root @ root.T, generator.normal(size=12)
    start = generator.dirichlet(np.ones(12)) if seed else np.eye(12)[3]
    found = minimise_quadratic(hessian, gradient, start)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    ascent = gradient - hessian @ (found - start)
    multiplier = ascent[found > 0].mean()
    np.testing.assert_allclose(ascent[found > 0], multiplier, atol=1e-8)
    assert (ascent[found == 0] <= multiplier + 1e-8).all()


def test_example_of_the_module_runs() -> None:
    found = doctest.testmod(simplex, raise_on_error=True)
    assert found.attempted > 15
