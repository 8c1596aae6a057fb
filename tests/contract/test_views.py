"""Contract of every view, for every normalisation and source."""

from typing import get_args

import pytest
import torch

from hms_ray.config.inputs import InputConfig, Normalisation
from hms_ray.config.views import PICTURES
from hms_ray.transforms.downsample import downsample
from hms_ray.transforms.views import image_size, join_views, view_widths
from tests.contract.windows import BLOCKS, N_ROWS, SHAPES, VIEWS, config_of, constants_of, windows
from tests.view_images import make_image

MODES = get_args(Normalisation)
every_view = pytest.mark.parametrize(("source", "picture"), VIEWS)
every_mode = pytest.mark.parametrize("mode", MODES)
both_blocks = pytest.mark.parametrize("downsampled", [False, True])


def test_every_source_is_tested() -> None:
    assert set(PICTURES) == set(SHAPES) == set(BLOCKS)


def made(
    source: str, config: InputConfig, x: torch.Tensor, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    constants = constants_of(source, *config.treatment(source))
    return make_image({source: x}, config, {source: constants} if constants else {}, dtype)


@every_view
@every_mode
@both_blocks
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images(
    source: str, picture: str, mode: Normalisation, downsampled: bool, dtype: torch.dtype
) -> None:
    config = config_of(source, picture, mode, BLOCKS[source] if downsampled else (1, 1))
    x = windows(source)
    before = x.clone()
    image = made(source, config, x, dtype)
    assert image.shape == (N_ROWS, 1, *image_size(config, SHAPES))
    assert view_widths(config, SHAPES) == (image.shape[3],)
    assert image.dtype == dtype
    assert image.is_contiguous()
    assert torch.isfinite(image).all()
    assert image.std() > 0
    torch.testing.assert_close(x, before, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(image, made(source, config, x, dtype))
    assert not image[1].any(), "what was never recorded is 0"


@every_view
@every_mode
@both_blocks
def test_rows_are_independent(
    source: str, picture: str, mode: Normalisation, downsampled: bool
) -> None:
    config = config_of(source, picture, mode, BLOCKS[source] if downsampled else (1, 1))
    x = windows(source)
    together = made(source, config, x)
    backwards = made(source, config, x.flip(0)).flip(0)
    torch.testing.assert_close(backwards, together, rtol=1e-12, atol=1e-12)
    for row in range(N_ROWS):
        alone = made(source, config, x[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-12, atol=1e-12)


@every_view
@every_mode
@both_blocks
def test_precisions_agree(
    source: str, picture: str, mode: Normalisation, downsampled: bool
) -> None:
    config = config_of(source, picture, mode, BLOCKS[source] if downsampled else (1, 1))
    x = windows(source)
    single, double = (made(source, config, x, t) for t in (torch.float32, torch.float64))
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)


@every_view
@every_mode
@both_blocks
def test_gradients_are_finite(
    source: str, picture: str, mode: Normalisation, downsampled: bool
) -> None:
    block = BLOCKS[source] if downsampled else (1, 1)
    config = config_of(source, picture, mode, block)
    constants = constants_of(source, mode, block)
    x = downsample(windows(source), block, torch.float64).requires_grad_()
    image = join_views({source: x}, config, {source: constants} if constants else {})
    weights = torch.linspace(0.5, 2.0, image.numel(), dtype=torch.float64).view_as(image)
    (image * weights).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert not x.grad[x.isnan()].any(), "missing values have no gradient"
    assert x.grad[3].any()


@every_mode
@pytest.mark.parametrize("size", [None, (10, 9)])
def test_all_views_side_by_side(mode: Normalisation, size: tuple[int, int] | None) -> None:
    of_source = {"normalisation": mode}
    config = InputConfig.model_validate(
        {
            "views": [f"{source} {picture}" for source, picture in VIEWS],
            **of_source,
            "eeg": of_source,
            "pairs": of_source,
            "raw": of_source,
            "size": size,
        }
    )
    x = {source: windows(source) for source in PICTURES}
    found = {source: constants_of(source, mode, (1, 1)) for source in x}
    constants = {source: values for source, values in found.items() if values}
    image = make_image(x, config, constants)
    assert tuple(image.shape[2:]) == image_size(config, SHAPES)
    assert torch.isfinite(image).all()
    assert image.is_contiguous()
    if size is None:
        parts = image.split(list(view_widths(config, SHAPES)), dim=3)
        for (source, picture), part in zip(VIEWS, parts, strict=True):
            single = config_of(source, picture, mode, (1, 1))
            single = single.model_copy(update={"height": image.shape[2]})
            alone = make_image({source: x[source]}, single, constants)
            torch.testing.assert_close(part, alone, rtol=0, atol=0)
