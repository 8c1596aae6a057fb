"""EEG recipes on one core: milliseconds per EEG, and the rate of mel compared with librosa.

All make the same windows in the same process, in turn, so that a busy machine slows them
alike; a ratio is of one turn. Goal: mel at least 5 times as fast as librosa. The recipe by
``torch.stft`` is compared too; all values are checked.

Run: python -m tests.benchmarks.eeg_spectrogram_rate [TURNS]
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch

from hms_ray.config.eeg_recipes import EegRecipe, RawRecipe
from hms_ray.signal.mel import mel_weights
from hms_ray.signal.windows import bipolar_signals, make_windows
from tests.eeg_windows import noise_windows, wave_window
from tests.librosa_recipe import librosa_image

WINDOWS = 4
OURS: dict[str, EegRecipe | RawRecipe] = {
    "mel": EegRecipe(),
    "mel, 10 s": EegRecipe(centre_s=10),
    "mel, 0.5-20 Hz, 1024 uV": EegRecipe(band_hz=(0.5, 20), clip_uv=1024),
    "mel_fixed": EegRecipe(kind="mel_fixed"),
    "multitaper": EegRecipe(kind="multitaper"),
    "stft": EegRecipe(kind="stft"),
    "raw, 100 Hz": RawRecipe(),
}


def by_librosa(eeg: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.from_numpy(librosa_image(window.numpy())) for window in eeg])


def by_torch_stft(eeg: torch.Tensor) -> torch.Tensor:
    signals = bipolar_signals(eeg, EegRecipe()).flatten(0, 1)
    hann = torch.hann_window(128)
    transform = torch.stft(signals, 1024, 39, 128, hann, pad_mode="constant", return_complex=True)[
        ..., :256
    ]
    power = torch.from_numpy(mel_weights()).float() @ transform.abs().square()
    largest = power.amax((1, 2), keepdim=True)
    decibels = 10 * (power.clamp(min=1e-10).log10() - largest.log10())
    image = (decibels.clamp(min=-80) + 40) / 40
    return image.view(len(eeg), 4, 4, 128, 256).mean(2)


def main() -> None:
    torch.set_num_threads(1)
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    eeg = torch.cat([wave_window() + noise_windows(1, seed) for seed in range(WINDOWS)])
    sides: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "librosa": by_librosa,
        "torch.stft": by_torch_stft,
        **{name: lambda eeg, r=recipe: make_windows(eeg, r) for name, recipe in OURS.items()},  # type: ignore[misc]
    }
    expected = by_librosa(eeg)
    for name in ("torch.stft", "mel"):
        difference = float((sides[name](eeg) - expected).abs().max())
        print(f"largest difference of {name} from librosa: {difference:.1e}")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side(eeg)
    for turn in range(turns):
        for name in sides if turn % 2 else reversed(sides):
            began = time.perf_counter()
            sides[name](eeg)
            seconds[name].append((time.perf_counter() - began) / WINDOWS)
    print(f"{'recipe':24} {'ms/EEG':>8} {'least-most':>15} {'x librosa':>10}  least-most")
    for name, taken in seconds.items():
        ratios = [a / b for a, b in zip(seconds["librosa"], taken, strict=True)]
        spread = f"{1e3 * min(taken):.1f}-{1e3 * max(taken):.1f}"
        print(
            f"{name:24} {1e3 * statistics.median(taken):8.2f} {spread:>15} "
            f"{statistics.median(ratios):10.2f}  {min(ratios):.2f}-{max(ratios):.2f}"
        )


if __name__ == "__main__":
    main()
