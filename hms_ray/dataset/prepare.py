"""From a competition folder to everything that training reads: rows, folds, packs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hms_ray.competition.check import require_sound
from hms_ray.competition.read import read_labels
from hms_ray.competition.rows import split_rows
from hms_ray.config.experiment import DataConfig, Experiment
from hms_ray.config.inputs import InputConfig, used_sources
from hms_ray.dataset.folds import (
    NOTES,
    check_folds,
    fit_folds,
    folds_fingerprint,
    make_folds,
    scarce_classes,
)
from hms_ray.dataset.hold_out import (
    DATA_DIR,
    PACK_DIR,
    HoldOut,
    set_aside,
    with_held_out_rows,
    without_held_out,
)
from hms_ray.dataset.label_rows import label_windows, labelled
from hms_ray.dataset.missing_signal import apply_missing_signal_policy, missing_shares
from hms_ray.dataset.packs import Bars, build_packs, is_packed, pack_parts
from hms_ray.dataset.sources import LABEL_WINDOWS, SourceRecipe, experiment_sources, source_key
from hms_ray.errors import DataError, FoldError
from hms_ray.pack.build import default_pack_dir
from hms_ray.pack.local_copy import local_copy
from hms_ray.pack.store import Pack, open_pack
from hms_ray.storage.atomic import whole_file
from hms_ray.storage.folder_names import STORE_NAME
from hms_ray.storage.hashing import digest, table_fingerprint

RowsCheck = Callable[[pd.DataFrame], None]
"""Raises if rows with their folds (see ``Prepared.rows``) cannot be trained as planned."""


@dataclass(frozen=True)
class PackRef:
    """Folder of a pack, and the hash of its values and recipe."""

    path: Path
    fingerprint: str


@dataclass(frozen=True)
class Prepared:
    """References to prepared data, small enough to send to every worker.

    Attributes:
        rows_file: parquet file of the training rows with their folds.
        packs: ``source_key`` -> pack of every prepared source.
        rows_fingerprint: hash of the rows: windows, votes, targets.
        folds_fingerprint: hash of the fold table.
        n_folds: number of folds.
        notes: lines about held-out patients, rows without a usable signal and classes with
            few rows.
        holdout: rows set aside; None if ``data.holdout`` is 0.
        label_rows_fingerprint: hash of the label rows; None if nothing reads their windows.
    """

    rows_file: Path
    packs: dict[str, PackRef]
    rows_fingerprint: str
    folds_fingerprint: str
    n_folds: int
    notes: tuple[str, ...] = ()
    holdout: HoldOut | None = None
    label_rows_fingerprint: str | None = None

    def rows(self) -> pd.DataFrame:
        """Training rows, see ``make_rows``.

        Additional columns: ``fold``, and ``missing_<source>`` for each prepared source, the
        share of the row's window that is missing; and ``LABELS`` if a source needs label rows.
        ``attrs`` have ``DATA_DIR`` and ``PACK_DIR``.
        """
        return pd.read_parquet(self.rows_file)

    def packs_of(self, config: InputConfig, *, label_rows: bool = False) -> dict[str, PackRef]:
        """Source -> pack, for the sources that an input uses.

        Args:
            config: the input.
            label_rows: whether windows of label rows are read too.

        Raises:
            DataError: if a source was not prepared.
        """
        found = {}
        for name, recipe in used_sources(config).items():
            key = source_key(name, recipe, label_rows)
            if key not in self.packs:
                raise DataError(
                    "a source must be prepared before it is used",
                    got=key,
                    where=f"the packs {', '.join(self.packs)}",
                )
            found[name] = self.packs[key]
        return found


def prepare(
    data_dir: str | Path,
    experiment: Experiment,
    results: str | Path,
    *,
    sources: Sequence[SourceRecipe] | None = None,
    pack_dir: str | Path | None = None,
    folds: pd.DataFrame | None = None,
    bars: Bars | None = None,
    check: RowsCheck | None = None,
    with_held_out: bool = False,
) -> Prepared:
    """Checks a competition folder and makes rows, folds and packs.

    Rows of held-out patients (``data.holdout``) are set aside first: they are in no fold and
    no pack, and no result or cache key depends on their votes or signals. Labels, folds and
    ``check`` come next, since they take seconds; then every recording is checked and packed.

    Args:
        data_dir: competition folder.
        experiment: defines the row unit, the folds and the policy for unusable rows.
        results: folder of all studies; the row table is written to its store.
        sources: see ``dataset.sources.sources_for``. Default: those of the experiment.
        pack_dir: folder of packs. Default: ``packed`` in the competition folder.
        folds: fold table to use, see ``read_folds``; entries of held-out patients are
            dropped, with a note. Default: folds are drawn.
        bars: creates the progress bar of each pack.
        check: called with all rows and their folds before a recording is read. Rows without
            a usable signal are still among them, and the ``missing_`` columns are absent.
        with_held_out: the rows of held-out patients are among the others, in fold 0; for
            training on all rows alone. ``folds`` must then be given.

    Raises:
        FaultyDataError: if the folder has faults.
        FoldError: if the fold table does not fit the rows.
        DataError: if rows have no usable signal and ``data.unusable`` is ``error``.
        PackError: if a window is outside its recording, or the content of a pack does not
            match its checksums.
    """
    data_dir = Path(data_dir)
    pack_dir = Path(pack_dir) if pack_dir is not None else default_pack_dir(data_dir)
    if sources is None:
        sources = experiment_sources(experiment)
    fold_notes: tuple[str, ...] = () if folds is None else folds.attrs.get(NOTES, ())
    rows, held_out = _split_rows(data_dir, experiment.data)
    if with_held_out:
        rows = pd.concat([rows, held_out]).sort_values("row_id", ignore_index=True)
        folds, held_out = with_held_out_rows(folds, held_out), held_out[:0]
    folds, dropped = without_held_out(folds, held_out)
    with_folds = _with_folds(rows, experiment.data, folds)
    if check is not None:
        check(with_folds)
    labels = label_windows(data_dir, rows, experiment.data.unit, sources)
    parts, only_rows = pack_parts(sources, rows, labels), experiment.data.holdout > 0
    # Every value was read when the packs were made. After that tables and file sizes are
    # enough, so that a sweep starts at once.
    packed = all(is_packed(data_dir, pack_dir, *part, only_rows=only_rows) for part in parts)
    tolerated = () if experiment.data.unusable == "error" else ("no_numbers",)
    require_sound(data_dir, signals=not packed, cache_dir=pack_dir, tolerated=tolerated)
    packs: dict[str, Pack] = {}
    for part in parts:
        packs |= build_packs(data_dir, pack_dir, *part, bars, only_rows=only_rows)
    table, folds, notes = _table(rows, packs, experiment.data, folds)
    labels_print = None
    if labels is not None:
        read = {source_key(*one): packs[source_key(*one)] for one in sources if one.label_rows}
        table, labels_print, dropped_labels = labelled(table, labels, read, experiment.data)
        notes += dropped_labels
    table.attrs |= {DATA_DIR: str(data_dir.resolve()), PACK_DIR: str(pack_dir.resolve())}
    rows_print = table_fingerprint(table[list(rows.columns)])
    folds_print = folds_fingerprint(folds)
    content = [rows_print, folds_print, *sorted(pack.fingerprint for pack in packs.values())]
    content += [] if labels_print is None else [labels_print]
    file = Path(results) / STORE_NAME / "rows" / f"{digest(content)}.parquet"
    with whole_file(file) as draft:
        # An existing file is replaced too: to write it is cheaper than to check it.
        table.to_parquet(draft, index=False)
    holdout = None
    if only_rows and not with_held_out:
        holdout = set_aside(held_out, file.parent, data_dir, pack_dir)
        notes = (holdout.note(), *dropped, *notes)
    notes = (*fold_notes, *notes)
    return Prepared(
        rows_file=file.resolve(),
        packs={
            key: PackRef(Path(pack.path).resolve(), pack.fingerprint) for key, pack in packs.items()
        },
        rows_fingerprint=rows_print,
        folds_fingerprint=folds_print,
        n_folds=int(table["fold"].max()) + 1,
        notes=notes,
        holdout=holdout,
        label_rows_fingerprint=labels_print,
    )


def rows_with_folds(
    data_dir: str | Path, config: DataConfig, folds: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Training rows with their folds from the label table alone, see ``RowsCheck``.

    Args:
        data_dir: competition folder.
        config: row unit and folds.
        folds: fold table to use. Default: folds are drawn.

    Raises:
        FaultyDataError: if the label table has faults.
        DataError: if the fold table does not fit the rows.
    """
    rows, held_out = _split_rows(Path(data_dir), config)
    return _with_folds(rows, config, without_held_out(folds, held_out)[0])


def _split_rows(data_dir: Path, config: DataConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """See ``split_rows``; rows without a usable signal are still among them."""
    try:
        return split_rows(read_labels(data_dir), config)
    except DataError:
        require_sound(data_dir)  # Reports all faults at once.
        raise


def _with_folds(rows: pd.DataFrame, config: DataConfig, given: pd.DataFrame | None) -> pd.DataFrame:
    """Rows with their folds, before it is known which signals are usable."""
    known = rows
    if given is not None and "row_id" in given and config.unusable == "drop":
        # The table of a study does not have the rows that were dropped.
        known = rows[rows["row_id"].isin(given["row_id"].astype(str))].reset_index(drop=True)
    folds = _folds(rows, known, config, given)
    return rows.merge(folds[["row_id", "fold"]], on="row_id", validate="one_to_one")


def _table(
    rows: pd.DataFrame, packs: dict[str, Pack], config: DataConfig, given: pd.DataFrame | None
) -> tuple[pd.DataFrame, pd.DataFrame, tuple[str, ...]]:
    """The rows to train on with folds and missing shares; their folds; notes."""
    # Of two packs with the same values, one has the windows of label rows too.
    packs = {
        key: pack
        for key, pack in packs.items()
        if not key.endswith(LABEL_WINDOWS) or key.removesuffix(LABEL_WINDOWS) not in packs
    }
    is_kept, notes = apply_missing_signal_policy(rows, packs, config.unusable)
    kept = rows[is_kept].reset_index(drop=True)
    if kept.empty:
        raise DataError(
            "some rows must have a usable signal in each source",
            got="none",
            fix="Check the recordings, or zero-fill such rows with data.unusable: keep.",
        )
    folds = _folds(rows, kept, config, given)
    fold_of = kept["row_id"].map(folds.set_index("row_id")["fold"]).astype("int64")
    table = pd.concat([kept.assign(fold=fold_of), missing_shares(kept, packs)], axis=1)
    return table, folds, (*notes, *scarce_classes(kept, int(table["fold"].max()) + 1))


def _folds(
    rows: pd.DataFrame, kept: pd.DataFrame, config: DataConfig, given: pd.DataFrame | None
) -> pd.DataFrame:
    """The folds of the rows that are kept, drawn or from a given table."""
    if given is None:
        # Drawn from all rows, so that studies of other sources have the same folds.
        folds = make_folds(rows, config.n_folds, config.fold_seed)
        folds = folds[folds["row_id"].isin(kept["row_id"])].reset_index(drop=True)
        check_folds(folds, kept, config.n_folds)
        return folds
    if "row_id" in given:
        ids = given["row_id"].astype(str)
        foreign = ids.isin(rows["row_id"]) & ~ids.isin(kept["row_id"])
        if config.n_patients is not None:
            # The table may have all patients.
            foreign |= ~ids.isin(rows["row_id"])
        given = given[~foreign]
    try:
        return fit_folds(given, kept)
    except DataError as error:
        raise FoldError(error.rule, got=error.got, where=error.where, fix=error.fix) from None


def open_prepared(pack: PackRef, local_cache: Path | None = None) -> Pack:
    """Opens a prepared pack and checks that it is still the same.

    Args:
        pack: to open.
        local_cache: folder of this machine's own copies of packs, see ``pack.local_copy``;
            default: the pack itself is opened.

    Raises:
        DataError: if the pack was built again from other data.
        PackError: see ``open_pack``.
    """
    path = pack.path
    if local_cache is not None:
        path = local_copy(path, pack.fingerprint, local_cache)
    found = open_pack(path)
    if found.fingerprint != pack.fingerprint:
        raise DataError(
            "a pack must not change while it is in use",
            got=f"fingerprint {found.fingerprint[:12]} instead of {pack.fingerprint[:12]}",
            where=pack.path,
            fix="Run the command again.",
        )
    return found
