"""Recipes of the sources that are made from EEGs; each recipe is a pack of its own."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from hms_ray.config.electrodes import PairOrder

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def _rising_band(band: tuple[float, float] | None) -> tuple[float, float] | None:
    # 100 Hz is half of the recordings' rate.
    if band is not None and not band[0] < band[1] < 100:
        raise ValueError("a band must rise and end below 100 Hz")
    return band


BandHz = Annotated[tuple[Positive, Positive] | None, AfterValidator(_rising_band)]
Gaps = Literal["mean", "interpolate", "zero"]
MarginS = Annotated[float, Field(ge=0, le=50)]

EEG_RATE_HZ: Final = 200
_MEL_FRAMES: Final = 256
_MEL_LONGEST: Final = 1024
_FRAME_SAMPLES: Final = {"mel": 128, "mel_fixed": 128, "multitaper": 800, "stft": 400}
_HOP_SAMPLES: Final = {"multitaper": 400, "stft": 40}
"""Mel recipes divide what they use into 256 frames instead."""


class Frozen(BaseModel):
    """Base of all configurations: immutable, no unknown keys, finite numbers."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class SignalFields(Frozen):
    """What all recipes share: the bipolar signals of an EEG window of 50 s, and the part in use."""

    centre_s: Annotated[float, Field(gt=0, le=50)] = 50.0
    """Middle seconds of the window that are used, such as 10 for a zoomed centre."""
    gaps: Gaps = "mean"
    """NaN values in a bipolar signal are replaced by its mean (published), by linear
    interpolation, or by zero."""
    margin_s: MarginS = 0.0
    """Seconds before and after each window that are packed too; needed for
    ``augment.window_shift_s``."""

    @property
    def used_samples(self) -> int:
        """Samples in ``centre_s`` at 200 Hz."""
        return round(self.centre_s * EEG_RATE_HZ)


class SpectrogramFields(SignalFields):
    """What all recipes of spectrograms share."""

    band_hz: BandHz = None
    """Zero-phase band-pass, Hz, applied first to all 50 s of the bipolar signals. Default:
    no filter."""
    clip_uv: Positive | None = None
    """Bipolar signals are clipped to plus or minus this, microvolts, after the band-pass
    (high-ranking teams: 1024). Default: no clipping."""

    @property
    @abstractmethod
    def frame_hop(self) -> int:
        """Samples from one frame to the next."""

    @property
    def margin(self) -> int:
        """Frames in ``margin_s``."""
        return round(self.margin_s * EEG_RATE_HZ / self.frame_hop)


class EegRecipe(SpectrogramFields):
    """How spectrograms are made from an EEG window of 50 s."""

    kind: Literal["mel", "mel_fixed", "multitaper", "stft"] = "mel"
    """``mel``: mel power in dB below its own maximum (widely copied). ``mel_fixed``: dB
    above a fixed reference, which keeps the amplitude. ``multitaper``: as the spectrograms
    of the competition were made. ``stft``: log power of a short-time Fourier transform,
    0.5 to 20 Hz."""
    window_samples: Annotated[int, Field(ge=16, le=2048)] | None = None
    """Samples per frame, at 200 Hz; mel at most 1024. Default: mel 128, multitaper 800,
    stft 400."""
    hop_samples: Count | None = None
    """Samples from one frame to the next. Default: mel such that 256 frames fill
    ``centre_s``, multitaper 400, stft 40."""

    @property
    def frame_samples(self) -> int:
        """``window_samples``, or its default: mel 128, multitaper 800, stft 400."""
        return self.window_samples or _FRAME_SAMPLES[self.kind]

    @property
    def frame_hop(self) -> int:
        """``hop_samples``, or its default: mel ``used_samples`` // 256, 400, 40."""
        if self.hop_samples is not None:
            return self.hop_samples
        return _HOP_SAMPLES.get(self.kind, self.used_samples // _MEL_FRAMES)

    @property
    def n_frames(self) -> int:
        """Frames in a window; mel recipes pad the ends, the others use whole frames only."""
        if self.kind in _HOP_SAMPLES:
            return 1 + (self.used_samples - self.frame_samples) // self.frame_hop
        return self.used_samples // self.hop_samples if self.hop_samples else _MEL_FRAMES

    @model_validator(mode="after")
    def _frames_fit(self) -> Self:
        if self.used_samples < self.frame_samples:
            raise ValueError(
                f"centre_s must hold a frame of {self.frame_samples} samples, "
                f"at least {self.frame_samples / EEG_RATE_HZ:g} s"
            )
        if self.kind not in _HOP_SAMPLES and self.frame_samples > _MEL_LONGEST:
            raise ValueError(f"window_samples must be at most {_MEL_LONGEST} for {self.kind}")
        if self.frame_hop == 0:
            raise ValueError(
                f"centre_s must be at least {_MEL_FRAMES / EEG_RATE_HZ:g} s "
                f"for {_MEL_FRAMES} frames"
            )
        if self.frame_hop > self.used_samples:
            raise ValueError("hop_samples must not be longer than centre_s")
        return self


LARGEST_FLOAT16: Final = 65_504


class RawRecipe(SignalFields):
    """How bipolar signals are made from an EEG window of 50 s."""

    rate_hz: Annotated[int, Field(ge=10, le=200)] = 100
    """Sampling rate after resampling, Hz."""
    band_hz: BandHz = (0.5, 20.0)
    """Zero-phase band-pass, Hz, applied first; ``null`` for no filter."""
    clip_uv: Positive = 1024.0
    """Signals are clipped to plus or minus this, microvolts, after the band-pass."""
    scale_uv: Positive = 32.0
    """Signals are divided by this, microvolts."""
    order: PairOrder = "chains"
    """Pairs from top to bottom: ``chains``, ``interleaved`` or a list, see
    ``input.pairs.order``."""
    midline: bool = True
    """Add the pairs Fz-Cz and Cz-Pz after the sixteen pairs of a named order; unused with a
    list."""

    @property
    def margin(self) -> int:
        """Samples in ``margin_s`` at ``rate_hz``."""
        return round(self.margin_s * self.rate_hz)

    @property
    def n_samples(self) -> int:
        """Samples in ``centre_s`` at ``rate_hz``."""
        return round(self.rate_hz * self.centre_s)

    @model_validator(mode="after")
    def _float16_holds_it(self) -> Self:
        if self.clip_uv / self.scale_uv > LARGEST_FLOAT16:
            raise ValueError(
                f"clip_uv / scale_uv must be at most {LARGEST_FLOAT16}, the largest float16, "
                f"got {self.clip_uv / self.scale_uv:g}"
            )
        return self

    @model_validator(mode="after")
    def _samples_are_whole(self) -> Self:
        for rate in (self.rate_hz, EEG_RATE_HZ):
            samples = rate * self.centre_s
            if round(samples) < 1 or abs(samples - round(samples)) > 1e-6:
                raise ValueError(
                    f"centre_s must be a whole number of samples at {rate} Hz, got {samples:g}"
                )
        return self
