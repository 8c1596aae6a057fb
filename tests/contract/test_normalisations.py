"""Contract of every normalisation, own and fitted."""

from typing import Any, get_args

import numpy as np
import pytest
import torch

from hms_ray.config.inputs import Normalisation
from hms_ray.config.views import PICTURES
from hms_ray.errors import TrainingError
from hms_ray.transforms.downsample import downsample
from hms_ray.transforms.fit_statistics import FITS
from hms_ray.transforms.normalise import OWN, Constants, Scope, normalise
from tests.contract.windows import SHAPES, constants_of, windows

MODES = get_args(Normalisation)
every_mode = pytest.mark.parametrize("mode", MODES)
every_scope = pytest.mark.parametrize("scope", get_args(Scope))
every_source = pytest.mark.parametrize("source", list(PICTURES))
every_fit = pytest.mark.parametrize("mode", list(FITS))


def test_every_normalisation_is_own_fitted_or_none() -> None:
    assert sorted(MODES) == sorted(["none", *OWN, *FITS])


@every_mode
@every_scope
@every_source
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_finite_and_repeat(
    mode: Normalisation, scope: Scope, source: str, gaps: bool, dtype: torch.dtype
) -> None:
    x = downsample(windows(source, gaps), (1, 1), dtype)
    before, constants = x.clone(), constants_of(source, mode, (1, 1))
    z = normalise(x, mode, scope, constants)
    assert z.shape == x.shape
    assert z.dtype == dtype
    assert torch.isfinite(z).all()
    assert not z[x.isnan()].any()
    torch.testing.assert_close(x, before, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(z, normalise(x, mode, scope, constants))


@every_mode
@every_scope
def test_order_within_a_panel_and_frequency_is_kept(mode: Normalisation, scope: Scope) -> None:
    x = downsample(windows("kaggle", gaps=False), (1, 1), torch.float64)
    z = normalise(x, mode, scope, constants_of("kaggle", mode, (1, 1)))
    assert torch.equal(x.argsort(3), z.argsort(3))


@every_mode
@every_scope
@every_source
def test_gradients_are_finite(mode: Normalisation, scope: Scope, source: str) -> None:
    x = downsample(windows(source), (1, 1), torch.float64).requires_grad_()
    z = normalise(x, mode, scope, constants_of(source, mode, (1, 1)))
    (z * torch.linspace(0.5, 2.0, z.numel(), dtype=z.dtype).view_as(z)).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert x.grad[3].any()


@every_mode
@every_scope
def test_constant_images_are_finite(mode: Normalisation, scope: Scope) -> None:
    even = torch.full((2, 4, 8, 12), 3.3, dtype=torch.float64)
    z = normalise(even, mode, scope, constants_of("kaggle", mode, (1, 1)))
    assert torch.isfinite(z).all()
    assert z.abs().max() < 100
    constants = FITS[mode](lambda: [even]) if mode in FITS else None
    z = normalise(even, mode, scope, constants)
    assert torch.isfinite(z).all()


@every_fit
@every_source
def test_constants_are_plain_and_repeat(mode: Normalisation, source: str) -> None:
    x = windows(source)
    constants = FITS[mode](lambda: [x[:3], x[3:]])
    assert constants == FITS[mode](lambda: iter([x[:3], x[3:]]))
    for values in (constants.mean, constants.std):
        found: Any = values if isinstance(values, tuple) else (values,)
        assert len(found) in (1, SHAPES[source][1])
        assert all(type(value) is float for value in found)
        assert np.isfinite(found).all()
    plain: dict[str, Any] = constants.plain()
    assert plain.keys() == {"mean", "std"}
    assert np.min(plain["std"]) > 0


@every_fit
@every_source
def test_constants_depend_on_batches_only_by_rounding(mode: Normalisation, source: str) -> None:
    x = windows(source)
    once = FITS[mode](lambda: [x])
    for batches in (x.split(1), x.split(4), x.flip(0).split(3)):
        again = FITS[mode](lambda parts=batches: parts)  # type: ignore[misc]
        for name, values in again.plain().items():
            np.testing.assert_allclose(values, once.plain()[name], rtol=1e-12)


@every_fit
def test_constants_ignore_missing_values(mode: Normalisation) -> None:
    x = windows("kaggle")
    changed = x.clone()
    changed[3] += 1.0
    assert FITS[mode](lambda: [x]) != FITS[mode](lambda: [changed])
    never = torch.cat([x, torch.full_like(x, torch.nan)])
    for name, values in FITS[mode](lambda: [never]).plain().items():
        np.testing.assert_allclose(values, FITS[mode](lambda: [x]).plain()[name], rtol=1e-12)


@every_fit
def test_rows_without_values_are_refused(mode: Normalisation) -> None:
    nothing = torch.full((2, 4, 3, 3), torch.nan)
    rule = f"{mode} normalisation needs training rows with recorded values, got NaN only"
    with pytest.raises(TrainingError, match=rule):
        FITS[mode](lambda: [nothing])


@every_fit
def test_fitted_mode_needs_constants(mode: Normalisation) -> None:
    with pytest.raises(TrainingError, match=f"{mode} normalisation must be fitted before"):
        normalise(torch.zeros(1, 4, 3, 3), mode, "panel")


def test_constants_used_in_scoring_work_in_training() -> None:
    constants, x = Constants((0.1, 0.2), (1.0, 2.0)), torch.zeros(1, 4, 2, 3)
    with torch.inference_mode():
        normalise(x, "per_frequency", "panel", constants)
    learnt = x.clone().requires_grad_()
    normalise(learnt, "per_frequency", "panel", constants).sum().backward()  # type: ignore[no-untyped-call]
    assert learnt.grad is not None
