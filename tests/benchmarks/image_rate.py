"""Milliseconds per image from windows to images, compared with NumPy one window at a time.

An image of 400 x 300 is made from a window of 4 x 100 x 300 float16: normalisation, view and
same-class CutMix of every batch, on one core, in batches of 32. The comparison is a data
loader's worker: float32 NumPy, one window after another, CutMix per item, stacked at the end.
Both start from the same windows, in memory as time x columns (the order of a pack and of the
competition's files), and must give equal images. Turns alternate in one process; a ratio is
of one pair of turns. Times are CPU times, so that other processes matter less. Goals: at most
2 ms per image, at least 3 times the rate. Cases that only read and write memory (`none` and
fitted modes, for panels and statistics) reach about twice the rate.

Tried without success: to subtract and divide in place while four images of float16 become
float32, so that they stay in the cache. Bits are equal and it takes 8 to 25% less (panels
0.31 to 0.24 ms, 2.7 times NumPy's rate), but no further case reaches 3 times, and views and
training would no longer share one path. In ``normalise`` alone it gains nothing.

Run: python -m tests.benchmarks.image_rate [PAIRS]
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from hms_ray.augment.cutmix import CutMixPlan, apply_cutmix, plan_cutmix
from hms_ray.config.augmentation import CutMixConfig
from hms_ray.config.inputs import InputConfig, Normalisation
from hms_ray.config.views import PICTURES
from hms_ray.transforms.downsample import downsample
from hms_ray.transforms.fit_statistics import FITS
from hms_ray.transforms.normalise import EPSILON, OWN, Constants, normalise
from hms_ray.transforms.views import PANEL_PICTURES, image_size
from tests.view_images import make_image

BATCH, SHAPE = 32, (4, 100, 300)
MODES = get_args(Normalisation)
SINGLE = [(picture,) for picture in PICTURES["kaggle"]]
JOINED = [("panels", "statistics"), ("panels", "percentiles")]
"""Published pairs of views: images of 400 x 600."""
LIMIT_MS, MIN_RATIO, TOLERANCE = 2.0, 3.0, 1e-4

Array = NDArray[Any]


def batch_of_windows(gaps: bool) -> torch.Tensor:
    """(32, 4, 100, 300) float16 in the memory order of a pack; a fifth with gaps."""
    values = np.random.default_rng(0).normal(1, 2, size=(BATCH, 300, 4, 100))
    if gaps:
        values[::5, 40:70] = np.nan
        values[3, :, 1, 50:] = np.nan
    return torch.from_numpy(values.astype(np.float16)).permute(0, 2, 3, 1)


def numpy_normalised(x: Array, mode: str, picture: str, constants: Constants | None) -> Array:
    """One window (4, 100, 300), float32."""
    if mode == "none":
        return np.nan_to_num(x, nan=0.0)
    if mode in OWN:
        axes = (1, 2) if mode == "per_panel" or picture == "panels" else (0, 1, 2)
        mean, std = np.nanmean(x, axes, keepdims=True), np.nanstd(x, axes, keepdims=True)
    else:
        assert constants is not None
        mean, std = (
            np.asarray(values, dtype=np.float32).reshape(-1, 1)
            for values in (constants.mean, constants.std)
        )
    return np.nan_to_num((x - mean) / (std + np.float32(EPSILON)), nan=0.0)


def numpy_picture(z: Array, picture: str) -> Array:
    """One image (400, 300) of one window."""
    if picture == "panels":
        return z.reshape(-1, z.shape[-1])
    if picture == "statistics":
        low, high = z.min(0), z.max(0)
        return np.concatenate([low, high, z.mean(0), high - low])
    ranked = np.percentile(z, [20, 40, 60, 80], axis=0)
    return ranked.reshape(-1, z.shape[-1]).astype(np.float32)


def numpy_images(
    items: list[Array], views: tuple[str, ...], mode: str, constants: Any, plan: CutMixPlan
) -> torch.Tensor:
    """A batch, item by item."""
    images = []
    for item in items:
        x = item.astype(np.float32)
        made = [
            numpy_picture(numpy_normalised(x, mode, picture, constants), picture)
            for picture in views
        ]
        images.append(made[0] if len(made) == 1 else np.concatenate(made, axis=1))
    cut = [image.copy() for image in images]
    for swap in plan.swaps:
        for row, donor in zip(swap.rows, swap.donors, strict=True):
            for first, stop in swap.bands:
                cut[row][:, first:stop] = images[donor][:, first:stop]
    return torch.from_numpy(np.stack(cut)[:, None])


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def race(views: tuple[str, ...], mode: Any, gaps: bool, pairs: int) -> tuple[float, float]:
    """Prints one case; returns its milliseconds per image and its ratio."""
    windows = batch_of_windows(gaps)
    items = list(windows.numpy())
    config = InputConfig(views=views, normalisation=mode)
    constants = FITS[mode](lambda: [windows]) if mode in FITS else None
    fitted = {"kaggle": constants} if constants else {}
    plan = draw_plan(config)

    def ours() -> torch.Tensor:
        return apply_cutmix(make_image({"kaggle": windows}, config, fitted), plan)

    def numpys() -> torch.Tensor:
        return numpy_images(items, views, mode, constants, plan)

    far = float((ours() - numpys()).abs().max())
    assert far <= TOLERANCE, f"{views} {mode}: images differ by {far}"
    for _ in range(3):
        ours()  # warms up the allocator
    times: dict[Any, list[float]] = {ours: [], numpys: []}
    for pair in range(pairs):
        for side in (ours, numpys) if pair % 2 else (numpys, ours):
            times[side].append(1e3 * seconds(side) / BATCH)
    low, middle, high = statistics.quantiles(times[ours], n=4)
    ratios = [b / a for a, b in zip(times[ours], times[numpys], strict=True)]
    ratio = statistics.median(ratios)
    print(
        f"{' + '.join(views):20} {mode:13} {'yes' if gaps else 'no':>4} {middle:7.3f}  "
        f"{low:.3f}-{high:.3f} {statistics.median(times[numpys]):7.2f} {ratio:6.1f}  "
        f"{min(ratios):.1f}-{max(ratios):.1f}",
        flush=True,
    )
    return middle, ratio


def draw_plan(config: InputConfig, axis: Any = "time") -> CutMixPlan:
    rng = np.random.default_rng(0)
    targets, shapes = np.eye(6)[rng.integers(0, 6, BATCH)], {"kaggle": SHAPE}
    size, widths = image_size(config, shapes), (300,) * len(config.views)
    plan = plan_cutmix(targets, size, widths, CutMixConfig(probability=1, axis=axis), rng)
    assert plan is not None
    return plan


def alone(repeats: int) -> None:
    """Prints the time of each part alone, for windows with gaps."""
    windows = batch_of_windows(gaps=True)
    x = downsample(windows, (1, 1))
    image = make_image({"kaggle": windows}, InputConfig())
    parts: dict[str, Callable[[], object]] = {"to float32": lambda: downsample(windows, (1, 1))}
    for mode in MODES:
        constants = FITS[mode](lambda: [windows]) if mode in FITS else None
        scope: Any
        for scope in ("panel", "image") if mode == "per_image" else ("panel",):
            parts[f"normalise {mode} ({scope})"] = lambda m=mode, s=scope, c=constants: normalise(  # type: ignore[misc]
                x, m, s, c
            )
    z = normalise(x, "none", "panel")
    for name, picture in PANEL_PICTURES.items():
        parts[f"view {name}"] = lambda make=picture: make(z)  # type: ignore[misc]
    for axis in ("time", "frequency"):
        plan = draw_plan(InputConfig(), axis)
        parts[f"cutmix {axis}"] = lambda p=plan: apply_cutmix(image, p)  # type: ignore[misc]
    print(f"\n{'alone':30} {'ms/image':>8}  quartiles")
    for name, part in parts.items():
        part()
        found = [1e3 * seconds(part) / BATCH for _ in range(repeats)]
        low, middle, high = statistics.quantiles(found, n=4)
        print(f"{name:30} {middle:8.3f}  {low:.3f}-{high:.3f}", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print(
        f"{'views':20} {'normalisation':13} {'NaN':>4} {'ms/img':>7}  {'quartiles':11} "
        f"{'NumPy':>7} {'ratio':>6}  range"
    )
    found = {
        (views, mode, gaps): race(views, mode, gaps, pairs)
        for views in (*SINGLE, *JOINED)
        for mode in MODES
        for gaps in (False, True)
    }
    alone(5 * pairs)
    slowest = max(ms for (views, *_), (ms, _) in found.items() if len(views) == 1)
    ratios = [ratio for _, ratio in found.values()]
    reached = sum(ratio >= MIN_RATIO for ratio in ratios)
    print(f"\nslowest image of 400 x 300: {slowest:.3f} ms (goal: at most {LIMIT_MS:g})")
    print(
        f"times NumPy's rate: at least {min(ratios):.1f}, median {statistics.median(ratios):.1f}, "
        f"{MIN_RATIO:g} or more in {reached} of {len(ratios)} cases"
    )


if __name__ == "__main__":
    main()
