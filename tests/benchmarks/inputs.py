"""Milliseconds an image that the input path takes on one core: windows to images.

Run: python -m tests.benchmarks.inputs
"""

import statistics
import time

import numpy as np
import torch

from hms_ray.augment.cutmix import apply_cutmix, plan_cutmix
from hms_ray.config.augmentation import CutMixConfig
from hms_ray.config.inputs import InputConfig
from hms_ray.train.windows import Resident
from hms_ray.transforms.normalise import Constants
from hms_ray.transforms.views import image_size
from tests.fold_data import example_pack
from tests.view_images import make_image

BATCH = 32
REPEATS = 40
CASES = {
    "panels": {"views": ("panels",)},
    "statistics": {"views": ("statistics",)},
    "panels + statistics": {"views": ("panels", "statistics")},
    "panels + percentiles": {"views": ("panels", "percentiles")},
}


def measure(config: InputConfig, gaps: bool) -> tuple[float, float, float]:
    """Median, least and upper quartile, ms an image, of gather, block, views and CutMix."""
    pack = example_pack(60_000, window=300, n_frequencies=100)
    if gaps:
        pack.values[::997, 100:180] = np.nan
    source = Resident(pack, torch.device("cpu"))  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    targets = np.eye(6)[rng.integers(0, 6, BATCH)]
    size = image_size(config, {"kaggle": (4, 100, 300)})
    fitted = {"kaggle": Constants(0.9, 2.0)}
    seconds = []
    for _ in range(REPEATS):
        starts = rng.integers(0, 59_000, BATCH)
        plan = plan_cutmix(
            targets, size, (1,) * len(config.views), CutMixConfig(probability=1), rng
        )
        assert plan is not None
        began = time.perf_counter()
        image = make_image({"kaggle": source.windows(starts)}, config, fitted)
        apply_cutmix(image, plan)
        seconds.append(time.perf_counter() - began)
    _, middle, high = statistics.quantiles(seconds, n=4)
    return tuple(1e3 * value / BATCH for value in (middle, min(seconds), high))  # type: ignore[return-value]


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'views':20} {'normalisation':13} {'block':>6} {'NaN':>4} {'ms/image':>9}  least-upper")
    for block in ((4, 4), (1, 1)):
        for name, views in CASES.items():
            for mode in ("per_image", "global"):
                for gaps in (False, True):
                    config = InputConfig(normalisation=mode, downsample=block, **views)
                    middle, low, high = measure(config, gaps)
                    print(
                        f"{name:20} {mode:13} {block[0]:>3}x{block[1]:<2} "
                        f"{'yes' if gaps else 'no':>4} {middle:9.3f}  {low:.3f}-{high:.3f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
