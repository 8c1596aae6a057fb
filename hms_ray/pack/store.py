"""Open packs: memory-mapped values and the positions of windows."""

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
from hms_ray.text import shortened_list


@dataclass(frozen=True, eq=False)
class Pack:
    """An open pack. Pickles as its path: the receiver maps the file itself.

    Attributes:
        path: folder of the pack.
        source: name of the source, such as ``kaggle``.
        kind: ``recordings``, in which windows start anywhere, or ``windows``.
        recipe: recipe of the values, as plain data.
        fingerprint: SHA-256 (hex) of recipe, recordings and values; equal for equal content.
        panels: names of the P panels.
        n_frequencies: F, frequencies per panel.
        window: positions of a training row.
        step_s: seconds between positions.
        n_samples: (windows) samples of each scalp channel that the recipe uses.
        recordings: one row per item. Index ``recording_id`` (int64, sorted); int64 columns
            ``offset`` (first position), ``length`` (positions) and ``n_missing`` (NaN values
            of the recording). For windows the index is the EEG's id, sorted by (id,
            ``start``), with two more columns, ``start`` (int64, first of the 10,000 samples)
            and ``usable`` (bool), and ``n_missing`` counts missing samples of the scalp
            channels before gaps were filled, without shift. With a margin: ``before`` and
            ``after`` (int64), positions by which the window can be moved within its EEG.
        values: float16 (n_positions, P * F), panel-major, NaN possible. Mapped copy-on-write,
            so processes share its pages.
        missing: (recordings) uint16 (n_positions,), number of NaN per position, mapped; None
            for windows.
        margin: (windows) maximum number of positions by which a window can be moved either
            way.
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
        # A worker receives the path, never a copy of the array.
        return open_pack, (self.path,)

    def locate(self, recording_ids: ArrayLike, starts: ArrayLike) -> NDArray[np.int64]:
        """First positions of windows in ``values``.

        Args:
            recording_ids: (N,) integers.
            starts: (N,) first position of each window in its recording; for a pack of
                windows the first sample of each window.

        Returns:
            int64 (N,).

        Raises:
            PackError: if a recording or window is not in the pack, or a window leaves its
                recording; the first one is named.
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
                fix="List the faults with: hms-ray check DIR",
            )
        return np.asarray(offsets[lines] + first, np.int64)

    def room(self, recording_ids: ArrayLike, starts: ArrayLike) -> NDArray[np.int64]:
        """Positions by which windows can be moved within their recordings and the pack.

        For arguments and errors see ``locate``.

        Returns:
            int64 (N, 2), positions to an earlier and to a later time.
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
            first: (N,) result of ``locate``.
            by: (N,) positions towards later times, within ``room``.

        Returns:
            int64 (N,); equal to ``first`` for windows that are not moved.
        """
        if self.kind == "recordings":
            return first + by
        # The strip follows the window and starts ``margin`` positions before it.
        return np.where(by == 0, first, first + self.window + self.margin + by)

    def missing_share(self, recording_ids: ArrayLike, starts: ArrayLike) -> NDArray[np.float64]:
        """Share of each window that is missing, 0 to 1.

        For a recording the share of NaN values. For an EEG the share of NaN and infinite
        samples among those of scalp channels that the recipe uses, before gaps were filled.
        float64 (N,); for arguments and errors see ``locate``.
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
        """Whether each window has any signal: bool (N,).

        A window of a recording has none if all its values are NaN. A window of an EEG has
        none if every bipolar signal of the recipe is constant or NaN over all samples that
        the recipe uses; it is stored as zeros. For arguments and errors see ``locate``.
        """
        if self.kind == "windows":
            lines = self._window_lines(*_pairs(recording_ids, starts))
            return np.asarray(self.recordings["usable"].to_numpy()[lines], np.bool_)
        return self.missing_share(recording_ids, starts) < 1

    def _recording_lines(self, ids: NDArray[np.int64]) -> NDArray[np.intp]:
        """Row numbers in ``recordings`` of whole recordings."""
        lines = self.recordings.index.get_indexer(pd.Index(ids))
        if (lines < 0).any():
            unknown = ids[lines < 0]
            raise PackError(
                f"a row's recording must be in the pack of {self.source}",
                got=shortened_list(list(dict.fromkeys(unknown.tolist())), 1),
                where=self.path,
                fix=BUILD_AGAIN,
            )
        return lines

    def _window_lines(self, ids: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.intp]:
        """Row numbers in ``recordings`` of windows."""
        held = pd.MultiIndex.from_arrays([self.recordings.index, self.recordings["start"]])
        lines = held.get_indexer(pd.MultiIndex.from_arrays([ids, starts]))
        if (lines < 0).any():
            absent = np.flatnonzero(lines < 0)
            raise PackError(
                f"a row's window must be in the pack of {self.source}",
                got=shortened_list([f"EEG {ids[k]} from sample {starts[k]}" for k in absent], 1),
                where=self.path,
                fix="Pack the rows of an experiment with: hms-ray pack DIR --space FILE",
            )
        return lines


def _pairs(
    recording_ids: ArrayLike, starts: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ids, first = np.asarray(recording_ids, np.int64), np.asarray(starts, np.int64)
    if ids.shape != first.shape or ids.ndim != 1:
        raise ValueError(f"ids and starts must have one shape (N,), got {ids.shape}, {first.shape}")
    return ids, first


def open_pack(path: str | Path) -> Pack:
    """Opens a pack; its values stay on disk until they are used.

    Raises:
        PackError: if there is no pack or one of another format, or a file is missing or
            differs in size from the manifest.
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
        raise damaged_pack(path, f"{values.dtype} {values.shape} instead of float16 {shape}")
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
