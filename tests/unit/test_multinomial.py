from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize
from sklearn.linear_model import LogisticRegression

from hms_ray.evaluate import multinomial
from hms_ray.evaluate.multinomial import Problem, Ridge, fit_multinomial, softmax_scores


def problem(
    n_rows: int = 120, tied: tuple[bool, ...] = (True, False, False), seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Ridge]:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(6, len(tied), n_rows))
    targets = generator.dirichlet(np.full(6, 0.5), size=n_rows)
    weights = generator.uniform(0.1, 2.0, size=n_rows)
    ridge = Ridge(
        prior=generator.normal(size=len(tied)),
        strength=generator.uniform(0.01, 0.1, size=len(tied)),
        tied=np.array(tied),
    )
    return features, targets, weights, ridge


def penalised(
    coefficients: np.ndarray, parts: tuple[np.ndarray, np.ndarray, np.ndarray, Ridge]
) -> float:
    """The documented formula, term by term."""
    features, targets, weights, ridge = parts
    total = 0.0
    for row in range(len(targets)):
        scores = np.array([features[k, :, row] @ coefficients[k] for k in range(6)])
        total += weights[row] * (np.log(np.exp(scores).sum()) - targets[row] @ scores)
    total /= weights.sum()
    for j, tied in enumerate(ridge.tied):
        changes = (coefficients[:1] if tied else coefficients)[:, j] - ridge.prior[j]
        total += 0.5 * ridge.strength[j] * float(changes @ changes)
    return total


def test_loss_gradient_and_hessian_match_the_formula() -> None:
    parts = problem()
    features, targets, weights, ridge = parts
    made = Problem(features, targets, weights / weights.sum(), ridge)
    here = made.prior + np.random.default_rng(1).normal(size=made.n_free)
    loss, gradient = made.loss(here)
    assert made.n_free == 1 + 6 * 2
    change = penalised(made.spread(here), parts) - penalised(made.spread(made.prior), parts)
    assert loss - made.loss(made.prior)[0] == pytest.approx(change, rel=1e-12)
    steps = 1e-6 * np.eye(made.n_free)
    slopes = [(made.loss(here + s)[0] - made.loss(here - s)[0]) / 2e-6 for s in steps]
    np.testing.assert_allclose(gradient, slopes, atol=1e-8)
    bends = [(made.loss(here + s)[1] - made.loss(here - s)[1]) / 2e-6 for s in steps]
    np.testing.assert_allclose(made.hessian(here), bends, atol=1e-7)


@pytest.mark.parametrize("tied", [(True, False, False), (False, False), (True, True)])
def test_no_other_solver_finds_lower(tied: tuple[bool, ...]) -> None:
    parts = problem(tied=tied)
    features, targets, weights, ridge = parts
    fit = fit_multinomial(*parts)
    made = Problem(features, targets, weights / weights.sum(), ridge)
    other = optimize.minimize(made.loss, made.prior, jac=True, method="BFGS", tol=1e-9)
    found = penalised(made.spread(other.x), parts)
    assert penalised(fit.coefficients, parts) == pytest.approx(found, abs=1e-10)
    assert fit.gap <= 1e-10
    for j in np.flatnonzero(tied):
        assert np.ptp(fit.coefficients[:, j]) == 0


def test_gap_bounds_the_distance_to_the_minimum(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = problem()
    best = penalised(fit_multinomial(*parts).coefficients, parts)
    gaps = []
    for steps in range(1, 4):
        monkeypatch.setattr(multinomial, "_MAX_ITERATIONS", steps)
        early = fit_multinomial(*parts)
        assert -1e-12 <= penalised(early.coefficients, parts) - best <= early.gap + 1e-12
        gaps.append(early.gap)
    assert gaps[0] > 1e-6


@pytest.mark.parametrize("tied", [(True, False, False), (False, False)])
def test_result_does_not_depend_on_the_hessian_approximation(
    monkeypatch: pytest.MonkeyPatch, tied: tuple[bool, ...]
) -> None:
    parts = problem(400, tied)
    with monkeypatch.context() as patched:
        patched.setattr(Problem, "curvature", Problem.hessian)
        exact = fit_multinomial(*parts)
    made: list[int] = []
    hessian = Problem.hessian

    def counted(self: Problem, free: np.ndarray, stride: int = 1) -> np.ndarray:
        made.append(stride)
        return hessian(self, free, stride)

    monkeypatch.setattr(Problem, "hessian", counted)
    monkeypatch.setattr(multinomial, "_MANY_ROWS", 400)
    found = fit_multinomial(*parts)
    # The first Hessian uses some of the rows, and not every step computes one.
    assert made[0] == 4
    assert len(made) < found.iterations
    assert found.gap <= 1e-10
    np.testing.assert_allclose(found.coefficients, exact.coefficients, atol=1e-6)
    assert penalised(found.coefficients, parts) == pytest.approx(
        penalised(exact.coefficients, parts), abs=1e-13
    )


@pytest.mark.parametrize("small", [1e-3, 0.0])
def test_unrepresentative_rows_only_slow_the_solver(
    monkeypatch: pytest.MonkeyPatch, small: float
) -> None:
    features, targets, weights, ridge = problem(400)
    # Every 4th row has almost no features, or weight 0.
    features[:, :, ::4] *= small
    weights[::4] *= small
    exact = fit_multinomial(features, targets, weights, ridge)
    monkeypatch.setattr(multinomial, "_MANY_ROWS", 400)
    found = fit_multinomial(features, targets, weights, ridge)
    assert found.gap <= 1e-10
    np.testing.assert_allclose(found.coefficients, exact.coefficients, atol=1e-6)


def test_hessian_of_some_rows_matches_a_fit_on_them() -> None:
    features, targets, weights, ridge = problem()
    whole = Problem(features, targets, weights / weights.sum(), ridge)
    part = weights[::3] / weights[::3].sum()
    alone = Problem(features[:, :, ::3].copy(), targets[::3], part, ridge)
    here = whole.prior + np.random.default_rng(1).normal(size=whole.n_free)
    np.testing.assert_allclose(whole.hessian(here, 3), alone.hessian(here), atol=1e-12)


def test_many_coefficients_are_fitted_without_a_hessian(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = problem()
    exact = fit_multinomial(*parts)
    monkeypatch.setattr(multinomial, "_MAX_FOR_HESSIAN", 3)
    found = fit_multinomial(*parts)
    assert found.iterations > exact.iterations
    np.testing.assert_allclose(found.coefficients, exact.coefficients, atol=1e-5)


def test_fit_matches_scikit_learn_logistic_regression() -> None:
    generator = np.random.default_rng(0)
    plain = generator.normal(size=(300, 4))
    labels = generator.integers(0, 6, size=300)
    plain[np.arange(300), labels % 4] += 1
    strength = 0.05
    ridge = Ridge(np.zeros(4), np.full(4, strength), np.zeros(4, bool))
    fit = fit_multinomial(
        np.broadcast_to(plain.T, (6, 4, 300)).copy(), np.eye(6)[labels], np.ones(300), ridge
    )
    model = LogisticRegression(C=1 / (300 * strength), fit_intercept=False, tol=1e-10)
    other = model.fit(plain, labels)
    np.testing.assert_allclose(fit.coefficients, other.coef_, atol=1e-5)
    features = np.broadcast_to(plain.T, (6, 4, 300))
    predicted = softmax_scores(features, fit.coefficients)
    np.testing.assert_allclose(predicted, other.predict_proba(plain), atol=1e-5)


def test_inputs_are_not_changed() -> None:
    features, targets, weights, ridge = problem()
    columns = np.asfortranarray(targets)
    kept = columns.copy()
    columns.setflags(write=False)
    fit_multinomial(features, columns, weights, ridge)
    np.testing.assert_array_equal(columns, kept)


def test_start_and_offset_do_not_change_the_model() -> None:
    features, targets, weights, ridge = problem()
    fit = fit_multinomial(features, targets, weights, ridge)
    again = fit_multinomial(features, targets, weights, ridge, start=fit.coefficients)
    assert again.iterations <= 1
    np.testing.assert_allclose(again.coefficients, fit.coefficients, atol=1e-6)
    # A feature whose coefficient is known can be an offset instead.
    offset = fit.coefficients[:, :1] * features[:, 0]
    rest = fit_multinomial(features[:, 1:], targets, weights, ridge.take([1, 2]), offset=offset)
    np.testing.assert_allclose(rest.coefficients, fit.coefficients[:, 1:], atol=1e-6)
