"""Rows and packs of a fold, ready to train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.experiment import Experiment
from hms_ray.dataset.label_rows import label_rows_in
from hms_ray.dataset.prepare import Prepared, open_prepared
from hms_ray.dataset.sources import WINDOW_COLUMNS

if TYPE_CHECKING:
    from hms_ray.pack.store import Pack
    from hms_ray.train.batches import FoldData, SourceRows


def locate_rows(packs: Mapping[str, Pack], rows: pd.DataFrame) -> dict[str, SourceRows]:
    """Positions of the windows of rows in packs.

    Args:
        packs: source -> its pack.
        rows: ids and starts of each row's windows (``WINDOW_COLUMNS``).

    Raises:
        PackError: if a window is not in its pack.
    """
    from hms_ray.train.batches import SourceRows

    sources = {}
    for name, pack in packs.items():
        windows = [rows[column].to_numpy() for column in WINDOW_COLUMNS[pack.source]]
        sources[name] = SourceRows(pack, pack.locate(*windows), pack.room(*windows))
    return sources


def fold_data(
    experiment: Experiment,
    prepared: Prepared,
    fold: int,
    rows: pd.DataFrame,
    local_cache: Path | None = None,
) -> FoldData:
    """Rows and packs of a fold, ready to train.

    Args:
        experiment: its input decides the packs.
        prepared: rows and packs.
        fold: number of the validation fold; ``prepared.n_folds`` trains on all rows.
        rows: of ``prepared``.
        local_cache: see ``open_prepared``.

    Raises:
        DataError: if a pack was built again from other data.
        PackError: if a window is not in its pack.
    """
    from hms_ray.train.batches import FoldData
    from hms_ray.train.label_rows import LabelRows

    draws_labels = experiment.training.draws_label_rows
    refs = prepared.packs_of(experiment.joint_input, label_rows=draws_labels)
    packs = {name: open_prepared(ref, local_cache) for name, ref in refs.items()}
    fold_of = rows["fold"].to_numpy()
    sources, labels = locate_rows(packs, rows), None
    if draws_labels:
        first, table = label_rows_in(rows)
        windows = locate_rows(packs, table)
        sources = {name: replace(own, labels=windows[name]) for name, own in sources.items()}
        labels = LabelRows(
            first, table[list(TARGET_COLUMNS)].to_numpy(), table["total_votes"].to_numpy()
        )
    return FoldData(
        sources=sources,
        targets=rows[list(TARGET_COLUMNS)].to_numpy(),
        total_votes=rows["total_votes"].to_numpy(),
        train=np.flatnonzero(fold_of != fold),
        valid=np.flatnonzero(fold_of == fold),
        labels=labels,
        scored=fold != prepared.n_folds,
    )
