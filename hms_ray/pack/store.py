"""Open packs: memory maps, and where a row's window is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from hms_ray.errors import PackError
from hms_ray.pack.layout import (
    BUILD_AGAIN,
    MISSING_FILE,
    RECORDINGS_FILE,
    VALUES_FILE,
    damaged_pack,
    read_pack_manifest,
)
from hms_ray.pack.windows import N_SCALP


@dataclass(frozen=True, eq=False)
class Pack:
    """An open pack. Pickles as its path: whoever receives it maps the file itself.

    Attributes:
        path: the pack's folder.
        source: name of the source, such as ``kaggle``.
        kind: ``recordings``, in which windows start anywhere, or ``windows``.
        recipe: what was done to the source's values, as plain data.
        fingerprint: SHA-256 (hex) of recipe, recordings and values; the same
            for equal content, wherever and whenever it was packed.
        panels: names of the P panels.
        n_frequencies: F, frequencies a panel.
        window: positions that a training row uses.
        step_s: seconds from one position to the next.
        n_samples: (windows) samples of each scalp channel that the recipe uses.
        recordings: index ``recording_id`` (int64, sorted), columns ``offset``
            (first position), ``length`` (positions) and ``n_missing``, int64:
            the recording's values that are NaN. For windows the index is the
            EEG's id, sorted by (id, ``start``), and there are two columns more:
            ``start`` (int64, first sample of the 10,000) and ``usable`` (bool);
            ``n_missing`` counts samples of the scalp channels, before gaps were
            filled; all three are about the window where it was asked for. With a
            margin there are ``before`` and ``after`` (int64): positions by which
            the window can be moved within its EEG.
        values: float16 (n_positions, P * F), panel-major, NaN possible. Mapped
            copy-on-write: pages are shared between processes.
        missing: (recordings) uint16 (n_positions,), NaN values of each
            position, mapped; None for windows.
        margin: (windows) largest number of positions by which a window can be
            moved either way.
    """

    path: Path
    source: str
    kind: Literal["recordings", "windows"]
    recipe: dict[str, Any]
    fingerprint: str
    panels: tuple[str, ...]
    n_frequencies: int
    window: int
    step_s: float
    n_samples: int
    recordings: pd.DataFrame
    values: NDArray[np.float16]
    missing: NDArray[np.uint16] | None
    margin: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker gets the path, never a copy of the array.
        return open_pack, (self.path,)

    def locate(self, recording_ids: ArrayLike, starts: ArrayLike) -> NDArray[np.int64]:
        """First positions of windows in ``values``.

        Args:
            recording_ids: (N,) whole numbers.
            starts: (N,) first position of each window within its recording; for
                a pack of windows the first sample of a window that it holds.

        Returns:
            int64 (N,).

        Raises:
            PackError: naming the first recording or window that is not in the
                pack, or the first window that leaves its recording.
        """
        ids, first = _pairs(recording_ids, starts)
        offsets = self.recordings["offset"].to_numpy()
        if self.kind == "windows":
            return np.asarray(offsets[self._window_lines(ids, first)], np.int64)
        lines = self._recording_lines(ids)
        lengths = self.recordings["length"].to_numpy()[lines]
        outside = (first < 0) | (first + self.window > lengths)
        if outside.any():
            k = int(np.argmax(outside))
            raise PackError(
                "a row's window must lie within its recording",
                got=f"positions {first[k]} to {first[k] + self.window} of {lengths[k]}",
                where=f"{self.source} recording {ids[k]}",
                fix="See what is wrong with: hms-ray check DIR",
            )
        return np.asarray(offsets[lines] + first, np.int64)

    def room(self, recording_ids: ArrayLike, starts: ArrayLike) -> NDArray[np.int64]:
        """How far windows can be moved without leaving their recordings or the pack.

        Args:
            recording_ids: (N,) as of ``locate``.
            starts: (N,) as of ``locate``.

        Returns:
            int64 (N, 2), positions to an earlier and to a later time.

        Raises:
            PackError: as of ``locate``.
        """
        ids, first = _pairs(recording_ids, starts)
        if self.kind == "recordings":
            lengths = self.recordings["length"].to_numpy()[self._recording_lines(ids)]
            return np.stack([first, lengths - first - self.window], axis=1)
        lines = self._window_lines(ids, first)
        if self.margin == 0:
            return np.zeros((len(ids), 2), np.int64)
        return self.recordings[["before", "after"]].to_numpy(np.int64)[lines]

    def moved(self, first: NDArray[np.int64], by: NDArray[np.int64]) -> NDArray[np.int64]:
        """First positions of moved windows in ``values``.

        Args:
            first: (N,) as ``locate`` gives them.
            by: (N,) positions towards later times, within ``room``.

        Returns:
            int64 (N,), ``first`` itself where a window is not moved.
        """
        if self.kind == "recordings":
            return first + by
        # A window's strip follows it and begins the margin before it.
        return np.where(by == 0, first, first + self.window + self.margin + by)

    def missing_share(self, recording_ids: ArrayLike, starts: ArrayLike) -> NDArray[np.float64]:
        """How much of each row's window is missing, from 0 to 1.

        Of a recording: the share of the window's values that are NaN. Of an EEG:
        the share of the scalp channels' samples, among those that the recipe
        uses, that were NaN or infinite before gaps were filled.

        Args:
            recording_ids: (N,) as of ``locate``.
            starts: (N,) as of ``locate``.

        Returns:
            float64 (N,).

        Raises:
            PackError: as of ``locate``.
        """
        if self.missing is None:
            lines = self._window_lines(*_pairs(recording_ids, starts))
            gaps = self.recordings["n_missing"].to_numpy(np.float64)[lines]
            return np.asarray(gaps / (N_SCALP * self.n_samples), np.float64)
        first = self.locate(recording_ids, starts)
        before = np.concatenate([[0], np.cumsum(self.missing, dtype=np.int64)])
        n_missing = before[first + self.window] - before[first]
        return np.asarray(n_missing / (self.window * self.values.shape[1]), np.float64)

    def usable(self, recording_ids: ArrayLike, starts: ArrayLike) -> NDArray[np.bool_]:
        """Whether there is any signal in each row's window.

        A recording's window has none where all its values are NaN, an EEG's where
        every bipolar signal of the recipe is one constant or NaN over all samples
        that it uses; such a window of an EEG is stored as zeros.

        Args:
            recording_ids: (N,) as of ``locate``.
            starts: (N,) as of ``locate``.

        Returns:
            bool (N,).

        Raises:
            PackError: as of ``locate``.
        """
        if self.kind == "windows":
            lines = self._window_lines(*_pairs(recording_ids, starts))
            return np.asarray(self.recordings["usable"].to_numpy()[lines], np.bool_)
        return self.missing_share(recording_ids, starts) < 1

    def _recording_lines(self, ids: NDArray[np.int64]) -> NDArray[np.intp]:
        """Lines of ``recordings`` of whole recordings."""
        lines = self.recordings.index.get_indexer(pd.Index(ids))
        if (lines < 0).any():
            unknown = ids[lines < 0]
            raise PackError(
                f"a row's recording must be in the pack of {self.source}",
                got=f"{unknown[0]}" + _and_more(np.unique(unknown).size - 1),
                where=self.path,
                fix=BUILD_AGAIN,
            )
        return lines

    def _window_lines(self, ids: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.intp]:
        """Lines of ``recordings`` of windows."""
        held = pd.MultiIndex.from_arrays([self.recordings.index, self.recordings["start"]])
        lines = held.get_indexer(pd.MultiIndex.from_arrays([ids, starts]))
        if (lines < 0).any():
            k = int(np.argmax(lines < 0))
            raise PackError(
                f"a row's window must be in the pack of {self.source}",
                got=f"EEG {ids[k]} from sample {starts[k]}" + _and_more(int((lines < 0).sum()) - 1),
                where=self.path,
                fix="Pack the rows of an experiment with: hms-ray pack DIR --space FILE",
            )
        return lines


def _pairs(
    recording_ids: ArrayLike, starts: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ids, first = np.asarray(recording_ids, np.int64), np.asarray(starts, np.int64)
    if ids.shape != first.shape or ids.ndim != 1:
        raise ValueError(f"ids and starts must be two lists, got {ids.shape}, {first.shape}")
    return ids, first


def open_pack(path: str | Path) -> Pack:
    """Opens a pack; its values stay on the disk until they are used.

    Raises:
        PackError: no pack there, one of another format, or a file that is
            missing or of another size than its manifest says.
    """
    path = Path(path)
    manifest = read_pack_manifest(path)
    for name, file in manifest["files"].items():
        _check_size(path / name, file["bytes"])
    try:
        recordings = pd.read_parquet(path / RECORDINGS_FILE).set_index("recording_id")
        values = np.load(path / VALUES_FILE, mmap_mode="c")
        missing = None
        if manifest["kind"] == "recordings":
            missing = np.load(path / MISSING_FILE, mmap_mode="r")
    except (ValueError, KeyError, OSError, pa.ArrowException) as error:
        raise damaged_pack(path, str(error)) from error
    shape = (int(recordings["length"].sum()), len(manifest["panels"]) * manifest["n_frequencies"])
    if values.shape != shape or values.dtype != np.float16:
        raise damaged_pack(path, f"{values.dtype} {values.shape} where float16 {shape} belongs")
    return Pack(
        path=path,
        source=manifest["source"],
        kind=manifest["kind"],
        recipe=manifest["recipe"],
        fingerprint=manifest["fingerprint"],
        panels=tuple(manifest["panels"]),
        n_frequencies=manifest["n_frequencies"],
        window=manifest["window"],
        step_s=manifest["step_s"],
        n_samples=manifest["n_samples"],
        recordings=recordings,
        values=values,
        missing=missing,
        margin=manifest.get("margin", 0),
    )


def _check_size(file: Path, expected: int) -> None:
    try:
        found = file.stat().st_size
    except FileNotFoundError:
        raise PackError("a pack's file must exist", where=file, fix=BUILD_AGAIN) from None
    if found != expected:
        raise PackError(
            f"a pack's file must have {expected:,} bytes",
            got=f"{found:,}",
            where=file,
            fix=BUILD_AGAIN,
        )


def _and_more(n: int) -> str:
    return f" and {n} more" if n > 0 else ""
