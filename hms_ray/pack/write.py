"""Writes the table and the manifest of a pack after its values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.pack.layout import (
    FORMAT,
    MANIFEST_FILE,
    MISSING_FILE,
    RECORDINGS_FILE,
    VALUES_FILE,
    pack_fingerprint,
)
from hms_ray.pack.make import ShardRecord
from hms_ray.pack.plan import PackPlan
from hms_ray.storage.hashing import file_sha256
from hms_ray.storage.structured_files import json_text, write_text

_SHOWN: Final = 10
"""Number of items that a summary names."""


def write_tables(folder: Path, plan: PackPlan, records: Sequence[ShardRecord]) -> None:
    """Writes ``recordings.parquet`` and, last, ``manifest.json``.

    Args:
        folder: folder of the values.
        plan: content of the pack.
        records: of all shards, in their order.

    Raises:
        OSError: if the folder is not writable or the disk is full.
    """
    source = plan.source
    recordings = _recordings(plan, records)
    # Overwrites the partial table of a packer that was killed here.
    recordings.reset_index().to_parquet(folder / RECORDINGS_FILE, index=False)
    shards = [
        {"first": shard.first, "n": shard.n_positions, "sha256": record.sha256}
        | ({"missing_sha256": record.missing_sha256} if record.missing_sha256 else {})
        for shard, record in zip(plan.shards, records, strict=True)
    ]
    manifest = {
        "format": FORMAT,
        "source": source.name,
        "kind": source.kind,
        "recipe": source.recipe,
        "fingerprint": pack_fingerprint(source.recipe, recordings, shards),
        "panels": source.panels,
        "n_frequencies": source.n_frequencies,
        "window": source.window,
        **({"margin": source.margin} if source.margin else {}),
        "step_s": source.step_s,
        "n_samples": source.eeg_recipe.used_samples if source.eeg_recipe else 0,
        "n_items": plan.n_items,
        "n_positions": plan.n_positions,
        "input_signature": plan.signature,
        "folder": str(plan.folder),
        "missing": _summary(recordings, records),
        "files": _files(folder),
        "shards": shards,
    }
    write_text(folder / MANIFEST_FILE, json_text(manifest))


def _recordings(plan: PackPlan, records: Sequence[ShardRecord]) -> pd.DataFrame:
    items = [item for shard in plan.shards for item in shard.items]
    length = np.array([item.length for item in items], np.int64)
    table: dict[str, NDArray[Any]] = {
        "offset": length.cumsum() - length,
        "length": length,
        "n_missing": np.concatenate([record.n_missing for record in records]).astype(np.int64),
    }
    if plan.source.kind == "windows":
        start = np.array([item.start for item in items], np.int64)
        usable = np.concatenate([record.usable for record in records]).astype(np.bool_)
        table = {"start": start, **table, "usable": usable}
    if plan.source.margin:
        room = np.concatenate([np.array(record.room, np.int64) for record in records])
        table |= {"before": room[:, 0], "after": room[:, 1]}
    ids = pd.Index([item.file.number for item in items], dtype="int64", name="recording_id")
    return pd.DataFrame(table, index=ids)


def _summary(recordings: pd.DataFrame, records: Sequence[ShardRecord]) -> dict[str, Any]:
    """Numbers of items with gaps and without signal, for readers of the manifest."""
    usable = np.concatenate([record.usable for record in records]).astype(np.bool_)
    unusable = recordings[~usable]
    names = ["recording_id", *(["start"] if "start" in recordings else [])]
    return {
        "n_with_gaps": int((recordings["n_missing"] > 0).sum()),
        "n_unusable": len(unusable),
        "first_unusable": unusable.reset_index()[names][:_SHOWN].to_numpy().tolist(),
    }


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    """Sizes of the files, and the checksum of the table, which no shard covers."""
    files: dict[str, dict[str, Any]] = {
        name: {"bytes": (folder / name).stat().st_size}
        for name in (VALUES_FILE, MISSING_FILE, RECORDINGS_FILE)
        if (folder / name).exists()
    }
    files[RECORDINGS_FILE]["sha256"] = file_sha256(folder / RECORDINGS_FILE)
    return files
