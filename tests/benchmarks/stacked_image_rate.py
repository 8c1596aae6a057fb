"""Milliseconds per image from resident packs of electrode pairs to a batch, on one core.

Images: two STFT windows of 18 pairs under each other (504 x 464), and mels of 16 pairs with a
magnified centre (1,024 x 602). A batch of 32 is gathered from the packs, made float32, its gaps
filled, and joined, as in training. Goal for 504 x 464: at most 3 ms. Beside it stands a plain
copy of one such float32 batch. Times are CPU times.

Run: python -m tests.benchmarks.stacked_image_rate [TURNS]
"""

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from hms_ray.config.inputs import InputConfig
from hms_ray.train.images import Images
from tests.fold_data import open_images, sources_of

BATCH, N_ROWS = 32, 96
STFT = {"kind": "stft", "window_samples": 145, "midline": True}
IMAGES = {
    "504 x 464, over": {
        "views": ["pairs.wide over pairs.centre panels"],
        "recipes": {
            "pairs": {
                "wide": {**STFT, "centre_s": 30, "hop_samples": 12, "n_frames": 464},
                "centre": {**STFT, "centre_s": 10, "hop_samples": 4},
            }
        },
    },
    "1,024 x 602, in": {
        "views": ["pairs.zoom in pairs.whole panels"],
        "splice_s": 10,
        "recipes": {
            "pairs": {
                "whole": {},
                "zoom": {"centre_s": 14, "n_fft": 2048, "window_samples": 32, "hop_samples": 8},
            }
        },
    },
}


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    torch.set_num_threads(1)
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    print(f"{'image':18} {'ms/image':>8}  {'range':>11} {'copy':>6} {'x copy':>7}")
    for name, inputs in IMAGES.items():
        config = InputConfig.model_validate(inputs)
        images = open_images(sources_of(config, N_ROWS), config)
        rows = np.random.default_rng(0).permutation(N_ROWS)
        batches = [rows[first : first + BATCH] for first in range(0, N_ROWS, BATCH)]
        copied = next(images.for_rows(batches)).clone()

        def make(images: Images = images, batches: list[np.ndarray] = batches) -> None:
            for _ in images.for_rows(batches):
                pass

        def copy(copied: torch.Tensor = copied) -> None:
            for _ in range(N_ROWS // BATCH):
                copied.clone()

        make()
        pairs = [(seconds(make), seconds(copy)) for _ in range(turns)]
        made, plain = (
            sorted(1e3 * one / N_ROWS for one in side) for side in zip(*pairs, strict=True)
        )
        ratio = statistics.median(one / other for one, other in pairs)
        print(
            f"{name:18} {statistics.median(made):8.2f}  {made[0]:5.2f}-{made[-1]:<5.2f} "
            f"{statistics.median(plain):6.2f} {ratio:7.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
