"""Recipe of spectrograms with a panel per electrode pair; a pack of its own."""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from hms_ray.config.eeg_recipes import (
    EEG_RATE_HZ,
    LARGEST_FLOAT16,
    Count,
    EegRecipe,
    Positive,
    RawRecipe,
    SpectrogramFields,
)
from hms_ray.config.electrodes import PairOrder

_WINDOW: Final = {"mel": 128, "stft": 270}
_HOP: Final = {"mel": 32, "stft": 19}
_FREQUENCIES_HZ: Final = {"mel": (0.53, 30.0), "stft": (0.5, 20.0)}
_SCALE: Final = {"mel": "db", "stft": "log1p"}
_MEL_N_FFT: Final = 512
_LARGEST_LOG: Final = 400.0
"""No float32 power is further than this from 0, in decibels or as a natural log."""

Scale = Literal["log", "log1p", "db"]


class PairsRecipe(SpectrogramFields):
    """How spectrograms of single electrode pairs are made from an EEG window of 50 s.

    Every value is on a fixed scale: nothing is relative to the window itself.
    """

    kind: Literal["mel", "stft"] = "mel"
    """``mel``: mel bands of Hann frames, centred on multiples of the hop; windows are extended
    at both ends. ``stft``: power density (one-sided, doubled) of whole frames without their
    mean, tapered by Tukey's window (0.25): as ``scipy.signal.spectrogram``."""
    order: PairOrder = "chains"
    """Pairs from top to bottom. ``chains``: LL, RL, LP, RP, each from front to back.
    ``interleaved``: left and right pairs in turn, first the lateral chains, then the others.
    Or a list such as ``[Fp1-F7, Fp2-F8]``. Neighbours meet in a CNN, so order matters."""
    midline: bool = False
    """Add Fz-Cz and Cz-Pz after the sixteen pairs of a named order; unused with a list."""
    window_samples: Annotated[int, Field(ge=16, le=2048)] | None = None
    """Samples per frame, at 200 Hz. Default: mel 128, stft 270."""
    hop_samples: Count | None = None
    """Samples from one frame to the next. Default: mel 32, stft 19."""
    n_fft: Annotated[int, Field(ge=16, le=8192)] | None = None
    """Points of the Fourier transform of a zero-padded frame. Default: mel 512 or, if that is
    longer, the frame; stft the frame."""
    n_frames: Count | None = None
    """Frames to keep, from the middle. Default: all."""
    frequencies_hz: tuple[Annotated[float, Field(ge=0)], Positive] | None = None
    """Lowest and highest frequency: of the outer mel bands' edges, or of the bins that are
    kept. Default: mel 0.53 to 30, stft 0.5 to 20."""
    n_mels: Annotated[int, Field(ge=1, le=512)] = 64
    """Mel bands; unused by stft."""
    mels: Literal["torchaudio", "librosa"] = "torchaudio"
    """Whose defaults the mel bands have. ``torchaudio``: HTK's scale, triangles of height 1,
    windows mirrored at their ends. ``librosa``: Slaney's scale, triangles of unit area, zeros
    beyond the ends. Unused by stft."""
    scale: Scale | None = None
    """Of power p: ``log`` is ln p, ``log1p`` ln(1 + p), ``db`` 10 log10 p; ``log`` and ``db``
    with p at least ``smallest_power``. Default: mel ``db``, stft ``log1p``."""
    reference_power: Positive = 1.0
    """Power is divided by this first: the power of 0 dB. The unit of power is that of the
    signals squared, per hertz for stft."""
    smallest_power: Positive = 1e-10
    """Least power after division by ``reference_power``, for ``log`` and ``db``."""
    clip_values: tuple[float, float] | None = None
    """Limits of the scaled power. Default: not clipped."""
    subtract: float = 0.0
    """Subtracted from the scaled and clipped power, the same in every window."""
    divide: Positive = 1.0
    """Divides what is left."""
    scale_uv: Positive = 1.0
    """Bipolar signals are divided by this, microvolts, after clipping (high-ranking teams:
    32)."""

    @property
    def frame_samples(self) -> int:
        """``window_samples``, or its default."""
        return self.window_samples or _WINDOW[self.kind]

    @property
    def frame_hop(self) -> int:
        """``hop_samples``, or its default."""
        return self.hop_samples or _HOP[self.kind]

    @property
    def transform_points(self) -> int:
        """``n_fft``, or its default."""
        if self.n_fft is not None:
            return self.n_fft
        return max(_MEL_N_FFT, self.frame_samples) if self.kind == "mel" else self.frame_samples

    @property
    def limits_hz(self) -> tuple[float, float]:
        """``frequencies_hz``, or its default."""
        return self.frequencies_hz or _FREQUENCIES_HZ[self.kind]

    @property
    def power_scale(self) -> str:
        """``scale``, or its default."""
        return self.scale or _SCALE[self.kind]

    @property
    def floor(self) -> float:
        """The value of power 0: the lowest of all."""
        value = 0.0 if self.power_scale == "log1p" else math.log(self.smallest_power)
        if self.power_scale == "db":
            value *= 10 / math.log(10)
        if self.clip_values is not None:
            value = min(max(value, self.clip_values[0]), self.clip_values[1])
        return (value - self.subtract) / self.divide

    @property
    def all_frames(self) -> int:
        """Frames in ``centre_s``; mel extends both ends, stft has whole frames only."""
        n = self.used_samples
        return 1 + (n if self.kind == "mel" else n - self.frame_samples) // self.frame_hop

    @property
    def kept_frames(self) -> int:
        """``n_frames``, or all."""
        return self.n_frames or self.all_frames

    @property
    def skipped_frames(self) -> int:
        """Frames before those that are kept."""
        return (self.all_frames - self.kept_frames) // 2

    @property
    def bins(self) -> tuple[int, int]:
        """First bin of the transform between the limits, and one past the last."""
        low, high = self.limits_hz
        bins = range(self.transform_points // 2 + 1)
        hertz = [number * EEG_RATE_HZ / self.transform_points for number in bins]
        return sum(f < low for f in hertz), sum(f <= high for f in hertz)

    @property
    def mel_corners_hz(self) -> tuple[float, ...]:
        """The ``n_mels`` + 2 corners of the triangles, equidistant on the mel scale.

        HTK: mel = 2595 log10(1 + f / 700). Slaney's scale is linear below 1,000 Hz.
        """
        low, high = self.limits_hz
        steps = [number / (self.n_mels + 1) for number in range(self.n_mels + 2)]
        if self.mels == "librosa":
            return tuple(low + step * (high - low) for step in steps)
        first, last = (math.log10(1 + edge / 700) for edge in (low, high))
        return tuple(700 * (10 ** (first + step * (last - first)) - 1) for step in steps)

    @property
    def n_frequencies(self) -> int:
        """Rows per pair."""
        first, stop = self.bins
        return self.n_mels if self.kind == "mel" else stop - first

    @model_validator(mode="after")
    def _frames_fit(self) -> Self:
        frame, seconds = self.frame_samples, self.frame_samples / EEG_RATE_HZ
        if self.used_samples < frame:
            raise ValueError(
                f"centre_s must hold a frame of {frame} samples, at least {seconds:g} s, "
                f"got {self.centre_s:g} s"
            )
        if self.transform_points < frame:
            raise ValueError(f"n_fft must be at least a frame of {frame} samples, got {self.n_fft}")
        if self.frame_hop > self.used_samples:
            raise ValueError("hop_samples must not be longer than centre_s")
        if self.kept_frames > self.all_frames:
            raise ValueError(
                f"n_frames must be at most the {self.all_frames} frames of centre_s, "
                f"got {self.n_frames}"
            )
        return self

    @model_validator(mode="after")
    def _frequencies_have_bins(self) -> Self:
        low, high = self.limits_hz
        if not low < high <= EEG_RATE_HZ / 2:
            raise ValueError(
                f"frequencies_hz must rise and end at 100 Hz or below, got {low:g} to {high:g}"
            )
        first, stop = self.bins
        width = EEG_RATE_HZ / self.transform_points
        if self.kind == "stft" and first == stop:
            raise ValueError(
                f"frequencies_hz must hold a bin; bins are {width:.3g} Hz apart, "
                f"got {low:g} to {high:g}"
            )
        corners = self.mel_corners_hz if self.kind == "mel" else ()
        for below, above in zip(corners[:-2], corners[2:], strict=True):
            if (below // width + 1) * width >= above:
                raise ValueError(
                    f"every mel band must hold a bin; none is between {below:.3g} and "
                    f"{above:.3g} Hz, got n_mels {self.n_mels} and n_fft {self.transform_points}"
                )
        return self

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        if self.clip_values is not None and not self.clip_values[0] < self.clip_values[1]:
            raise ValueError(f"clip_values must rise, got {list(self.clip_values)}")
        largest = (_LARGEST_LOG + abs(self.subtract)) / self.divide
        if largest > LARGEST_FLOAT16:
            raise ValueError(
                f"values must stay below {LARGEST_FLOAT16}, the largest float16, got about "
                f"{largest:.0f}; make divide larger or subtract smaller"
            )
        return self


SignalRecipe = EegRecipe | PairsRecipe | RawRecipe
"""Recipe of a source that is made from EEGs."""
