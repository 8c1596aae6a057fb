from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from hms_ray.ensemble.constrained import Cap, constrained_weights
from hms_ray.ensemble.simplex import SimplexFit, simplex_weights
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import kl_divergence
from tests.ensemble_data import EnsembleSample, ensemble_sample

CAPS = [Cap([0, 1], 0.2), Cap([1, 2, 3], 0.5)]
FIXED = {4: 0.1, 5: 0.0}


def slsqp(data: EnsembleSample, caps: list[Cap], fixed: dict[int, float]) -> float:
    """Lowest mean KL that SciPy's SLSQP finds; knows nothing of this project."""
    models = data.models
    bounds = [(fixed.get(m, 0.0), fixed.get(m, 1.0)) for m in range(len(models))]
    rules: list[dict[str, object]] = [{"type": "eq", "fun": lambda w: w.sum() - 1}]
    rules += [
        {"type": "ineq", "fun": lambda w, cap=cap: cap.max_weight - w[list(cap.models)].sum()}
        for cap in caps
    ]
    present = data.targets > 0

    def loss(w: np.ndarray) -> float:
        mixed = np.einsum("m,mnc->nc", w, models)
        return -float((data.targets[present] * np.log(mixed[present])).sum() / len(models[0]))

    start = np.array([(low + high) / 2 for low, high in bounds])
    found = optimize.minimize(
        loss,
        start / start.sum(),
        bounds=bounds,
        constraints=rules,
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )
    entropy = (data.targets[present] * np.log(data.targets[present])).sum() / len(models[0])
    return float(found.fun + entropy)


def check_allowed(fit: SimplexFit, caps: list[Cap], fixed: dict[int, float]) -> None:
    assert fit.weights.sum() == pytest.approx(1, abs=1e-12)
    assert fit.weights.min() >= 0
    for cap in caps:
        assert fit.weights[list(cap.models)].sum() <= cap.max_weight + 1e-12
    for model, weight in fixed.items():
        assert fit.weights[model] == pytest.approx(weight, abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("caps", "fixed"), [(CAPS, {}), ([], FIXED), (CAPS, FIXED), ([Cap([2, 3], 0.05)], {0: 0.7})]
)
def test_no_other_solver_finds_lower(seed: int, caps: list[Cap], fixed: dict[int, float]) -> None:
    data = ensemble_sample(8, seed=seed)
    fit = constrained_weights(data.targets, data.models, caps=caps, fixed=fixed)
    check_allowed(fit, caps, fixed)
    assert fit.gap <= 1e-9
    other = slsqp(data, caps, fixed)
    assert fit.objective <= other + 1e-9
    assert fit.objective == pytest.approx(other, abs=1e-6)
    blended = np.einsum("m,mnc->nc", fit.weights, data.models)
    assert fit.objective == pytest.approx(kl_divergence(data.targets, blended), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    n_models=st.integers(2, 12),
    most=st.floats(0.05, 1.0),
    fixed=st.floats(0.0, 0.6),
    seed=st.integers(0, 10**6),
)
def test_any_problem_gets_its_certificate(
    n_models: int, most: float, fixed: float, seed: int
) -> None:
    data = ensemble_sample(n_models, n_patients=6, seed=seed)
    caps = [Cap(range(1, 1 + n_models // 2), most)]
    if fixed + most < 1 and n_models // 2 + 1 >= n_models:
        caps = []
    pinned = {0: fixed}
    fit = constrained_weights(data.targets, data.models, caps=caps, fixed=pinned)
    check_allowed(fit, caps, pinned)
    assert fit.gap <= 1e-9
    free = simplex_weights(data.targets, data.models).objective
    assert fit.objective >= free - 1e-9


def test_inactive_constraints_give_the_simplex_optimum() -> None:
    data = ensemble_sample(6)
    free = simplex_weights(data.targets, data.models)
    fit = constrained_weights(data.targets, data.models, caps=[Cap([0, 1], 1.0)])
    np.testing.assert_allclose(fit.weights, free.weights, atol=1e-6)
    assert fit.objective == pytest.approx(free.objective, abs=1e-10)


def test_gap_bounds_the_distance_to_the_optimum() -> None:
    data = ensemble_sample(8)
    best = constrained_weights(data.targets, data.models, caps=CAPS, fixed=FIXED).objective
    for tolerance in (0.1, 0.01, 1e-4):
        early = constrained_weights(
            data.targets, data.models, caps=CAPS, fixed=FIXED, tolerance=tolerance
        )
        assert -1e-12 <= early.objective - best <= early.gap + 1e-12
        assert early.gap <= tolerance
    assert constrained_weights(data.targets, data.models, caps=CAPS, tolerance=1.0).gap > 1e-3


def best_under_a_cap(gains: np.ndarray, capped: np.ndarray, most: float) -> float:
    """The largest ``gains @ w`` where the capped models weigh ``most`` at most, by hand."""
    inside, outside = gains[capped].max(), gains[~capped].max()
    return float(outside + most * max(inside - outside, 0.0))


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("apart", [1e-5, 1e-6, 1e-7])
def test_gap_holds_for_almost_equal_models(apart: float, seed: int) -> None:
    """A linear program's usual tolerance, 1e-7, would take any of their corners as best."""
    generator = np.random.default_rng(seed)
    targets = generator.dirichlet(np.ones(6), size=200)
    one = (generator.dirichlet(np.full(6, 4.0), size=200) + targets) / 2
    models = one * (1 + apart * generator.standard_normal((12, 200, 6)))
    models /= models.sum(axis=2, keepdims=True)
    capped = np.arange(12) % 2 == 0
    cap = Cap(np.flatnonzero(capped).tolist(), 0.3)
    fit = constrained_weights(targets, models, caps=[cap])
    blended = np.einsum("m,mnc->nc", fit.weights, models)
    gains = (targets * (models - blended) / blended).sum(axis=2).mean(axis=1)
    assert best_under_a_cap(gains, capped, 0.3) <= fit.gap + 1e-12
    assert fit.gap <= 1e-10


@pytest.mark.parametrize("tiny", [1e-7, 1e-8, 1e-9, 1e-10, 1e-11])
def test_constraints_below_the_tolerance_of_the_solver_hold(tiny: float) -> None:
    data = ensemble_sample(3, n_patients=6)
    for caps, fixed in (
        ([Cap([1], 1.0)], {0: tiny}),
        ([Cap([1, 2], tiny)], {}),
        ([Cap([1], 1 - tiny)], {0: tiny}),
    ):
        fit = constrained_weights(data.targets, data.models, caps=caps, fixed=fixed)
        check_allowed(fit, caps, fixed)
        assert fit.gap <= 1e-9


def test_all_weights_may_be_fixed() -> None:
    data = ensemble_sample(3)
    fixed = {0: 0.5, 1: 0.25, 2: 0.25}
    fit = constrained_weights(data.targets, data.models, fixed=fixed)
    np.testing.assert_allclose(fit.weights, [0.5, 0.25, 0.25], atol=1e-12)
    assert fit.gap <= 1e-12


def test_row_weights_select_rows() -> None:
    data = ensemble_sample(5)
    good = data.votes >= 10
    masked = constrained_weights(data.targets, data.models, good, fixed={0: 0.3})
    alone = constrained_weights(data.targets[good], data.models[:, good], fixed={0: 0.3})
    np.testing.assert_allclose(masked.weights, alone.weights, atol=1e-7)


def test_infeasible_and_invalid_constraints_are_refused() -> None:
    data = ensemble_sample(3)
    arguments = (data.targets, data.models)
    with pytest.raises(
        PredictionError, match=r"infeasible constraints: .* got 1 family limit of 0\.9"
    ):
        constrained_weights(*arguments, caps=[Cap([0, 1, 2], 0.9)])
    with pytest.raises(PredictionError, match=r"got fixed weights of sum 1\.2"):
        constrained_weights(*arguments, fixed={0: 0.6, 1: 0.6})
    with pytest.raises(PredictionError, match="a cap must name models from 0 to 2, got model 3"):
        constrained_weights(*arguments, caps=[Cap([0, 3], 0.9)])
    with pytest.raises(PredictionError, match=r"a fixed weight must lie between 0 and 1, got 1\.5"):
        constrained_weights(*arguments, fixed={0: 1.5})
    with pytest.raises(PredictionError, match="a cap must lie between 0 and 1, got nan"):
        constrained_weights(*arguments, caps=[Cap([0], float("nan"))])
