"""The row browser's page as files, one for each chosen row, which need no server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hms_ray.errors import DataError, StudyError
from hms_ray.report.rows_app import SPANS_S, RowBrowser
from hms_ray.report.rows_page import page_html
from hms_ray.report.rows_signal import Filters
from hms_ray.report.rows_table import RowQuery
from hms_ray.storage.structured_files import write_text

_WIDTH: Final = 1600
"""Signals are reduced to so many pixels: a wide screen."""


def write_row_files(browser: RowBrowser, out: Path, row_ids: Sequence[str]) -> list[Path]:
    """Writes one HTML file for each row; existing files are replaced.

    Args:
        browser: of the study.
        out: folder, made if needed.
        row_ids: of the study's rows.

    Returns:
        The files.

    Raises:
        StudyError: if the study has no such row; nothing is written then.
    """
    for row_id in row_ids:
        browser.table.position(row_id)
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for row_id in row_ids:
        file = out / f"{re.sub(r'[^A-Za-z0-9._-]', '_', row_id)}.html"
        write_text(file, page_html(browser.about(), answers_of(browser, row_id)))
        files.append(file)
    return files


def answers_of(browser: RowBrowser, row_id: str) -> dict[str, Any]:
    """Everything that the page shows of a row: ``row``, ``eeg`` by seconds, ``spectrograms``."""
    return {
        "row": browser.row(row_id),
        "eeg": {str(span_s): _eeg(browser, row_id, span_s) for span_s in SPANS_S},
        "spectrograms": browser.spectrograms(row_id),
    }


def _eeg(browser: RowBrowser, row_id: str, span_s: int) -> dict[str, Any]:
    try:
        return browser.eeg(row_id, span_s, Filters(), _WIDTH)
    except DataError as error:
        return {"problem": str(error)}


def worst_rows(browser: RowBrowser, n: int) -> list[str]:
    """Ids of the rows of largest loss, largest first.

    Raises:
        StudyError: if no trial has finished, so that there are no losses.
    """
    table = browser.table
    if not table.models:
        raise StudyError(
            "the worst rows need a finished trial",
            got="none",
            where=f"study {table.study}",
            fix="Name rows with --row ID.",
        )
    return [table.summary(int(position))["id"] for position in table.order(RowQuery())[:n]]
