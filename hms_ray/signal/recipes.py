"""Layouts and descriptions of the recipes that turn EEG windows of 50 s into arrays.

``windows.make_windows`` computes the arrays; this module needs no torch.

Every recipe starts with bipolar differences, gaps filled by the recipe's policy over the
whole 50 s, band-pass and clip, then the middle ``centre_s`` seconds. Then:

- ``mel``: the widely copied recipe, ``librosa.feature.melspectrogram`` and ``power_to_db``:
  mel power in dB relative to the largest of the signal, at least -80, as (dB + 40) / 40;
  mean over a chain's four signals.
- ``mel_fixed``: the same power in dB relative to 1 microvolt squared per hertz, at least -60,
  as dB / 10; mean over a chain's four signals.
- ``multitaper``: the competition's own recipe; natural log, clipped as in packs of the
  competition's files.
- ``stft``: one Hann taper instead of three Slepian tapers, each frame without its mean; same
  frequencies, unit and clip.
- pairs: mel power or power density of each signal by itself, on a fixed scale.
- raw: the signals themselves.

With a margin, ``strip`` adds what the recording has around a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from hms_ray.competition.schema import EEG_RATE_HZ, N_FREQUENCIES, PANELS
from hms_ray.config.eeg_recipes import EegRecipe, RawRecipe
from hms_ray.config.pair_recipes import PairsRecipe, SignalRecipe
from hms_ray.signal.montage import ordered_pairs, pairs_of
from hms_ray.signal.spectrogram import (
    DECIMALS,
    FIRST_BIN,
    HIGHPASS_HZ,
    HIGHPASS_ORDER,
    LOG_HIGH,
    LOG_LOW,
    N_FFT,
    N_TAPERS,
    TIME_BANDWIDTH,
)

MEL_PANELS: Final = ("LL", "LP", "RL", "RP")
"""Panels in the order of the widely copied recipe."""
N_MELS: Final = 128
MEL_N_FFT: Final = 1024
"""Points of the transform, and the longest window."""
MEL_HIGHEST_HZ: Final = 20.0
MEL_AMIN: Final = 1e-10
"""Smallest power (librosa's ``amin``)."""
MEL_TOP_DB: Final = 80.0
"""``mel``: range of an image below its largest power."""
FIXED_SCALE_DB: Final = 10.0
"""``mel_fixed``: decibels per unit. With 10 the windows of the real sample have mean 0.0 and
standard deviation 1.1."""
FIXED_FLOOR_DB: Final = -60.0
"""``mel_fixed``: smallest value, a thousandth of amplifier noise; the value of flat signals."""
FILTER_ORDER: Final = 4
"""Order of the Butterworth band-pass in one of its two runs."""

TUKEY_SHARE: Final = 0.25
"""Tapered share of a frame of the ``stft`` of pairs (SciPy's default)."""

_VERSIONS: Final = {
    "mel": 1,
    "mel_fixed": 1,
    "multitaper": 1,
    "stft": 1,
    "pairs mel": 1,
    "pairs stft": 1,
    "raw": 1,
}
"""Incremented by hand when code changes the values of a recipe."""


@dataclass(frozen=True)
class Layout:
    """Layout (P, F, T) of the array of one window.

    Attributes:
        panels: names of the P panels.
        n_frequencies: F; 1 for signals.
        n_times: T.
        step_s: seconds between times.
    """

    panels: tuple[str, ...]
    n_frequencies: int
    n_times: int
    step_s: float


def layout_of(recipe: SignalRecipe) -> Layout:
    """The layout of a recipe's arrays.

    Panels are chains in ``MEL_PANELS`` or ``PANELS`` order, or pairs in the recipe's own.
    """
    if isinstance(recipe, RawRecipe):
        return Layout(_pair_names(recipe), 1, recipe.n_samples, 1 / recipe.rate_hz)
    step_s = recipe.frame_hop / EEG_RATE_HZ
    if isinstance(recipe, PairsRecipe):
        return Layout(_pair_names(recipe), recipe.n_frequencies, recipe.kept_frames, step_s)
    if recipe.kind in ("mel", "mel_fixed"):
        return Layout(MEL_PANELS, N_MELS, recipe.n_frames, step_s)
    return Layout(PANELS, N_FREQUENCIES, recipe.n_frames, step_s)


def pairs_used(recipe: SignalRecipe) -> tuple[tuple[str, str], ...]:
    """The (anode, cathode) pairs of a recipe, in its order.

    Four per panel; one per panel for recipes of pairs and raw ones, see ``ordered_pairs``.
    """
    if not isinstance(recipe, EegRecipe):
        return ordered_pairs(recipe.order, recipe.midline)
    return pairs_of(MEL_PANELS if recipe.kind in ("mel", "mel_fixed") else PANELS)


def _pair_names(recipe: SignalRecipe) -> tuple[str, ...]:
    return tuple(f"{anode}-{cathode}" for anode, cathode in pairs_used(recipe))


def recipe_description(recipe: SignalRecipe) -> dict[str, Any]:
    """Everything that decides the values of a recipe, as plain data.

    Defaults are resolved, so that two ways of writing one recipe are equal. Part of a pack's
    fingerprint.
    """
    kind, own = _numbers(recipe)
    band = None
    if recipe.band_hz is not None:
        band = {"low_hz": recipe.band_hz[0], "high_hz": recipe.band_hz[1], "order": FILTER_ORDER}
    if recipe.margin:
        own["margin"] = recipe.margin
    return {
        "recipe": kind,
        "version": _VERSIONS[kind],
        "pairs": list(_pair_names(recipe)),
        "gaps": recipe.gaps,
        "band": band,
        "clip_uv": recipe.clip_uv,
        **own,
    }


def _numbers(recipe: SignalRecipe) -> tuple[str, dict[str, Any]]:
    """Name of a recipe, and its own numbers."""
    if isinstance(recipe, RawRecipe):
        return "raw", _raw_numbers(recipe)
    if isinstance(recipe, PairsRecipe):
        return f"pairs {recipe.kind}", _pair_numbers(recipe)
    return recipe.kind, _frame_numbers(recipe)


def _pair_numbers(recipe: PairsRecipe) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "used_samples": recipe.used_samples,
        "window_samples": recipe.frame_samples,
        "hop_samples": recipe.frame_hop,
        "n_fft": recipe.transform_points,
        "n_frames": recipe.kept_frames,
        "scale": recipe.power_scale,
        "reference_power": recipe.reference_power,
        "clip_values": recipe.clip_values and list(recipe.clip_values),
        **{name: getattr(recipe, name) for name in ("subtract", "divide", "scale_uv")},
    }
    if recipe.power_scale != "log1p":
        numbers["smallest_power"] = recipe.smallest_power
    if recipe.kind == "mel":
        mel = {"limits_hz": list(recipe.limits_hz), "n_mels": recipe.n_mels, "mels": recipe.mels}
        return numbers | mel
    return numbers | {"bins": list(recipe.bins), "tukey_share": TUKEY_SHARE}


def _raw_numbers(recipe: RawRecipe) -> dict[str, Any]:
    numbers = {name: getattr(recipe, name) for name in ("rate_hz", "scale_uv")}
    return numbers | {"n_samples": recipe.n_samples}


def _frame_numbers(recipe: EegRecipe) -> dict[str, Any]:
    frames = {
        "used_samples": recipe.used_samples,
        "window_samples": recipe.frame_samples,
        "hop_samples": recipe.frame_hop,
        "n_frames": recipe.n_frames,
    }
    if recipe.kind in ("multitaper", "stft"):
        return frames | {
            "n_fft": N_FFT,
            "first_bin": FIRST_BIN,
            "n_frequencies": N_FREQUENCIES,
            "log_low": LOG_LOW,
            "log_high": LOG_HIGH,
            **(_TAPERS if recipe.kind == "multitaper" else {}),
        }
    numbers = {
        "n_fft": MEL_N_FFT,
        "n_mels": N_MELS,
        "highest_hz": MEL_HIGHEST_HZ,
    }
    if recipe.kind == "mel":
        return frames | numbers | {"amin": MEL_AMIN, "top_db": MEL_TOP_DB}
    return frames | numbers | {"scale_db": FIXED_SCALE_DB, "floor_db": FIXED_FLOOR_DB}


_TAPERS: Final = {
    "time_bandwidth": TIME_BANDWIDTH,
    "n_tapers": N_TAPERS,
    "highpass_hz": HIGHPASS_HZ,
    "highpass_order": HIGHPASS_ORDER,
    "decimals": DECIMALS,
}
