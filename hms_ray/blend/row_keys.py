"""Ids of the rows of files made elsewhere, and what they identify."""

from __future__ import annotations

from typing import Final, Literal, get_args

import pandas as pd

from hms_ray.competition.cells import id_texts, whole_numbers
from hms_ray.competition.rows import ROW_UNIT, Unit
from hms_ray.competition.tables import Table, rows_text
from hms_ray.errors import PredictionError
from hms_ray.text import shortened_list

KEY_NAMES: Final = ("row_id", "eeg_id", "eeg_sub_id")

Keys = Literal["eeg_votes", "eeg", "label", "row_id", "eeg_id"]
"""What ids of rows identify: rows of a unit, rows of an unknown unit (``row_id``; ids of
``label`` and of ``eeg_votes`` look alike), or EEGs."""


def row_keys(table: Table, row_unit: Unit | None = None) -> tuple[pd.Index[str], Keys]:
    """Ids of the rows of a table, as text, and what they identify.

    The id of a label row is ``<eeg_id>-<eeg_sub_id>`` (see ``make_rows``).

    Args:
        table: of a file.
        row_unit: unit of its row ids, if the file does not state it.

    Raises:
        PredictionError: if there are no ids, one is empty, or the file states another unit
            than ``row_unit``.
        DataError: if an EEG's id is no whole number.
    """
    row_id, eeg, sub = (table.column(name) for name in KEY_NAMES)
    if row_id is None and eeg is None:
        raise PredictionError(
            "rows need row_id, eeg_id and eeg_sub_id, or eeg_id",
            got=f"the columns {shortened_list(table.names)}",
            where=table.path,
            fix=f"Name the column: {table.option} {table.path.name}:row_id=THEIRS",
        )
    if row_id is not None:
        ids = pd.Index(id_texts(row_id))
        absent = ids == ""
        if absent.any():
            raise PredictionError(
                "every row must have a row_id",
                got=f"{int(absent.sum())} without",
                where=f"{table.path}, {rows_text(absent)}",
                fix="Fill in the ids, or remove these rows.",
            )
        return ids, _unit_of(ids, table, row_unit)
    names: pd.Index[str] = pd.Index(table.whole("eeg_id").astype(str))
    if sub is None:
        return names, "eeg_id"
    labels: pd.Index[str] = names + "-" + pd.Index(table.whole("eeg_sub_id").astype(str))
    return labels, "label"


def as_keys(unit: object) -> Keys:
    """Row ids of a unit; ``row_id`` if the unit is not a known one."""
    found: Keys = next((known for known in get_args(Unit) if known == unit), "row_id")
    return found


def _unit_of(ids: pd.Index[str], table: Table, named: Unit | None) -> Keys:
    """The unit of row ids: the file's own, else the given one, else unknown."""
    own = table.cells.attrs.get(ROW_UNIT)
    if own not in get_args(Unit):
        own = "label" if _are_labels(ids, table) else None
    if None not in (own, named) and own != named:
        raise PredictionError(
            "--row-unit must be the unit that the file states",
            got=f"{named} for row ids of {own}",
            where=table.path,
            fix=f"Omit it, or use --row-unit {own}.",
        )
    return as_keys(own or named)


def _are_labels(ids: pd.Index[str], table: Table) -> bool:
    """Whether the row ids are ``<eeg_id>-<eeg_sub_id>`` of the other id columns."""
    eeg, sub = (table.column(name) for name in KEY_NAMES[1:])
    if eeg is None or sub is None:
        return False
    numbers = [whole_numbers(values) for values in (eeg, sub)]
    if any(broken.any() for _, broken in numbers):
        return False
    named, subs = (pd.Index(values.astype(str)) for values, _ in numbers)
    return bool((named + "-" + subs == ids).all())
