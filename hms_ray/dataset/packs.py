"""The packs of a set of rows: found, or made and verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.competition.read import SPECTROGRAM_FORMAT, signal_rows
from hms_ray.dataset.sources import WINDOW_COLUMNS, SourceRecipe, pack_source, source_key
from hms_ray.errors import HmsRayError
from hms_ray.pack.build import build_pack, find_pack
from hms_ray.pack.inputs import input_files
from hms_ray.pack.sources import PackSource
from hms_ray.pack.store import Pack
from hms_ray.pack.verify import require_verified
from hms_ray.pack.windows import Recordings, Windows, distinct_windows

Bars = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]
"""(description, unit) -> a progress bar (see ``report.live.bar``)."""


def build_packs(
    data_dir: Path,
    pack_dir: Path,
    forms: Mapping[str, PackSource],
    rows: pd.DataFrame,
    bars: Bars | None = None,
    *,
    only_rows: bool = False,
) -> dict[str, Pack]:
    """Makes or opens packs with the windows of rows and verifies their content.

    Args:
        data_dir: competition folder.
        pack_dir: folder of packs.
        forms: ``source_key`` -> what is packed.
        rows: ids and starts of the windows.
        bars: creates the progress bar of each pack.
        only_rows: see ``part_of``.

    Raises:
        DataError: see ``build_pack``.
        PackError: see ``build_pack``; or if content does not match its checksums.
    """
    packs = {}
    for key, form in forms.items():
        with bars(f"packing {key}", form.kind) if bars else nullcontext() as progress:
            part = part_of(form, rows, only_rows=only_rows)
            packs[key] = build_pack(data_dir, pack_dir, form, part, progress=progress)
        require_verified(packs[key].path)
    return packs


PackParts = list[tuple[dict[str, PackSource], pd.DataFrame]]
"""``source_key`` -> what is packed, and the rows whose windows it has."""


def pack_parts(
    sources: Sequence[SourceRecipe], rows: pd.DataFrame, labels: pd.DataFrame | None
) -> PackParts:
    """The packs that sources need, by the windows that they have.

    Windows of label rows are packed apart from those of training rows alone, which experiments
    without label rows read, whatever others of their study read.

    Args:
        sources: each once.
        rows: training rows.
        labels: their label rows (see ``label_rows_of``), if a source needs them.
    """
    forms: tuple[dict[str, PackSource], dict[str, PackSource]] = {}, {}
    for source in sources:
        # Recordings are packed whole.
        apart = source.label_rows and source.recipe is not None
        forms[apart][source_key(*source)] = pack_source(*source)
    parts = [(forms[False], rows)]
    if forms[True]:
        assert labels is not None
        columns = ["eeg_id", "eeg_start"]
        parts.append((forms[True], pd.concat([rows[columns], labels[columns]])))
    return parts


def part_of(
    form: PackSource, rows: pd.DataFrame, *, only_rows: bool
) -> Windows | Recordings | None:
    """What the pack of a source holds: the rows' windows; or all recordings.

    Args:
        form: what is packed.
        rows: ids and starts of the windows.
        only_rows: whether only the recordings of the rows are packed. A pack of all would
            change with the recordings of held-out patients.
    """
    if form.kind == "windows":
        return distinct_windows(rows)
    if not only_rows:
        return None
    recordings = rows[WINDOW_COLUMNS[form.name][0]]
    return Recordings(tuple(sorted(set(recordings.tolist()))))


def is_packed(
    data_dir: Path,
    pack_dir: Path,
    forms: dict[str, PackSource],
    rows: pd.DataFrame,
    *,
    only_rows: bool,
) -> bool:
    """Whether all packs that ``build_packs`` would make exist; False if that is unknown."""
    try:
        return all(
            find_pack(data_dir, pack_dir, form, part_of(form, rows, only_rows=only_rows))
            is not None
            for form in forms.values()
        )
    except HmsRayError:
        # The check of the folder reports all faults at once.
        return False


def missing_pack_bytes(
    data_dir: Path,
    pack_dir: Path,
    forms: Mapping[str, PackSource],
    rows: pd.DataFrame,
    *,
    only_rows: bool,
) -> int:
    """Size of the packs that ``build_packs`` would still make.

    A source whose files have faults counts nothing: the check of the folder reports them.
    """
    return sum(
        _missing_bytes(data_dir, pack_dir, form, part_of(form, rows, only_rows=only_rows))
        for form in forms.values()
    )


def _missing_bytes(
    data_dir: Path, pack_dir: Path, form: PackSource, part: Windows | Recordings | None
) -> int:
    try:
        if find_pack(data_dir, pack_dir, form, part) is not None:
            return 0
        if isinstance(part, Windows):
            n_positions = len(part.eeg_ids) * form.item_length
        else:
            files = input_files(data_dir, form.directory, None if part is None else part.ids)
            with ThreadPoolExecutor() as pool:
                lengths = pool.map(lambda file: signal_rows(file.path, SPECTROGRAM_FORMAT), files)
                n_positions = sum(lengths)
    except HmsRayError:
        return 0
    # The number of missing values of each position is packed too.
    return n_positions * (form.n_values + 1) * np.dtype(np.float16).itemsize
