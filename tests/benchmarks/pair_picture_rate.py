"""Spectrograms per electrode pair on one core, compared with librosa and SciPy.

All make the same windows in the same process, in turn, so that a busy machine slows them
alike; a ratio is of one pair of turns. Goals: mel at least 5 times as fast as librosa, STFT at
least twice as fast as SciPy. Values are compared too. Times are CPU times; BLAS has one thread,
since its idle threads would count for both sides.

Run: python -m tests.benchmarks.pair_picture_rate [TURNS]
"""

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from hms_ray.config.pair_recipes import PairsRecipe
from hms_ray.signal.windows import make_windows
from tests.eeg_windows import noise_windows, wave_window
from tests.pair_pictures import by_library

WINDOWS = 4
WHOLE = PairsRecipe()
MAGNIFIED = PairsRecipe(centre_s=14, n_fft=2048, window_samples=32, hop_samples=8)
RECIPES = {
    "mel, 50 s": (5.0, (WHOLE,)),
    "mel, magnified 14 s": (5.0, (MAGNIFIED,)),
    "mel, both": (5.0, (WHOLE, MAGNIFIED)),
    "stft 270/251, 50 s": (2.0, (PairsRecipe(kind="stft", midline=True),)),
    "stft 145/133, 30 s": (
        2.0,
        (PairsRecipe(kind="stft", midline=True, centre_s=30, window_samples=145, hop_samples=12),),
    ),
    "stft 145/141, 10 s": (
        2.0,
        (PairsRecipe(kind="stft", midline=True, centre_s=10, window_samples=145, hop_samples=4),),
    ),
}


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) / WINDOWS


def main() -> None:
    torch.set_num_threads(1)
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    eeg = torch.cat([wave_window() + noise_windows(1, seed) for seed in range(WINDOWS)])
    print(f"{'recipe':24} {'ms/EEG':>8} {'library':>8} {'ratio':>6}  {'range':11} goal  difference")
    for name, (goal, recipes) in RECIPES.items():

        def ours(recipes: tuple[PairsRecipe, ...] = recipes) -> list[torch.Tensor]:
            return [make_windows(eeg, recipe) for recipe in recipes]

        def librarys(recipes: tuple[PairsRecipe, ...] = recipes) -> list[np.ndarray]:
            return [
                np.stack([by_library(window.numpy(), recipe) for window in eeg])
                for recipe in recipes
            ]

        pictures = zip(ours(), librarys(), strict=True)
        far = max(float(np.abs(one.numpy() - other).max()) for one, other in pictures)
        taken: dict[Callable[[], object], list[float]] = {ours: [], librarys: []}
        for turn in range(turns):
            for side in (ours, librarys) if turn % 2 else (librarys, ours):
                taken[side].append(seconds(side))
        ratios = [b / a for a, b in zip(taken[ours], taken[librarys], strict=True)]
        print(
            f"{name:24} {1e3 * statistics.median(taken[ours]):8.2f} "
            f"{1e3 * statistics.median(taken[librarys]):8.2f} {statistics.median(ratios):6.2f}  "
            f"{min(ratios):.2f}-{max(ratios):.2f}   {goal:4g}  {far:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
