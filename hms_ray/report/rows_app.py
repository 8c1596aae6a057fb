"""The row browser's answers: the page, lists, rows, signals; a WSGI application for them."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.schema import CLASSES, EEG_RATE_HZ, EEG_WINDOW_S
from hms_ray.errors import DataError, HmsRayError, StudyError
from hms_ray.report.rows_page import page_html
from hms_ray.report.rows_recordings import OWN_S, Recordings, data_folder
from hms_ray.report.rows_signal import (
    CHANNELS,
    GROUPS,
    HIGH_PASS_HZ,
    LOW_PASS_HZ,
    NOTCH_HZ,
    Filters,
    cut_eeg,
    reduce_signals,
)
from hms_ray.report.rows_spectrogram import PowerImages, eeg_images, kaggle_images
from hms_ray.report.rows_table import ALL, VOTES, RowQuery, RowTable
from hms_ray.study.folder import StudyFolder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

SPANS_S: Final = (OWN_S, EEG_WINDOW_S)
"""Selectable parts of a row's window: the ten seconds around its centre, or all of it."""
MAX_WIDTH: Final = 4000
"""Most pixels that signals are reduced to."""

Query = Mapping[str, str]


class RowBrowser:
    """Answers about the rows of one study, as plain data.

    Args:
        folder: the study.
        data: its competition folder. Default: the one that the study records.
        trial: see ``RowTable``.

    Raises:
        StudyError: as ``RowTable``.
    """

    def __init__(
        self, folder: StudyFolder, data: Path | None = None, trial: int | None = None
    ) -> None:
        self.table = RowTable(folder, trial)
        place = data_folder(folder, self.table.rows, data)
        self.recordings = Recordings(place, folder.row_unit)
        self.recordings.load_labels()
        problems = (self.recordings.missing(), self.recordings.labels_problem)
        self.notes = [*self.table.notes, *(problem for problem in problems if problem)]

    def about(self) -> dict[str, Any]:
        """What the page is about, and what can be chosen on it."""
        shown = self.table.models[0].name if self.table.models else None
        return {
            "study": self.table.study,
            "shown": shown,
            "n_rows": len(self.table.rows),
            "notes": self.notes,
            "all": ALL,
            "classes": CLASSES,
            "votes": list(VOTES),
            "disagreement": self.table.disagreement is not None,
            "channels": CHANNELS,
            "groups": [[name, len(pairs)] for name, pairs in GROUPS],
            "spans_s": SPANS_S,
            "filters": {
                "high_pass": HIGH_PASS_HZ,
                "low_pass": LOW_PASS_HZ,
                "notch": NOTCH_HZ,
            },
            "defaults": vars(Filters()),
        }

    def page(self, query: Query) -> dict[str, Any]:
        """A page of the list of rows; see ``RowQuery``."""
        return self.table.page(
            RowQuery(
                sort=query.get("sort", "loss"),  # type: ignore[arg-type]
                descending=query.get("descending", "1") == "1",
                of_class=query.get("class", ALL),
                votes=query.get("votes", ALL),
                page=int(_number(query, "page", 0)),
                row=query.get("row"),
            )
        )

    def row(self, row_id: str) -> dict[str, Any]:
        """One row: ``RowTable.details``, and its window and label rows in its recording."""
        row = self.table.rows.iloc[self.table.position(row_id)]
        start = int(row["eeg_start"]) / EEG_RATE_HZ
        return {
            **self.table.details(row_id),
            "spectrogram": int(row["spectrogram_id"]),
            "window_s": [start, start + EEG_WINDOW_S],
            "n_labels": int(row["n_labels"]),
            "labels": self.recordings.merged_labels(row),
        }

    def eeg(self, row_id: str, span_s: int, filters: Filters, width: int) -> dict[str, Any]:
        """The EEG around the centre of a row's window, reduced to a screen.

        Args:
            row_id: of the row.
            span_s: one of ``SPANS_S``.
            filters: to apply.
            width: of the screen in pixels.

        Raises:
            StudyError: if there is no such row.
            DataError: if its recording is missing or damaged, or shorter than the window.
        """
        if span_s not in SPANS_S:
            known = " or ".join(map(str, SPANS_S))
            raise DataError(f"the time shown must be {known} s", got=str(span_s))
        row = self.table.rows.iloc[self.table.position(row_id)]
        eeg = self.recordings.eeg(int(row["eeg_id"]))
        beside = (EEG_WINDOW_S - span_s) * EEG_RATE_HZ // 2
        first, n = int(row["eeg_start"]) + beside, span_s * EEG_RATE_HZ
        reduced = reduce_signals(cut_eeg(eeg, first, n, filters), min(max(width, 1), MAX_WIDTH))
        return {
            "start_s": first / EEG_RATE_HZ,
            "seconds": span_s,
            "point_s": reduced.per_point / EEG_RATE_HZ,
            "points": reduced.values.shape[1],
            "values": _base64(reduced.values.astype("<f4")),
            "gaps": [
                [channel, (first + begin) / EEG_RATE_HZ, (first + end) / EEG_RATE_HZ]
                for channel, begin, end in reduced.gaps
            ],
            "recording_s": len(eeg) / EEG_RATE_HZ,
        }

    def spectrograms(self, row_id: str) -> dict[str, Any]:
        """Both spectrograms of a row; in place of one that cannot be made, the reason."""
        row = self.table.rows.iloc[self.table.position(row_id)]
        return {
            "kaggle": _image(
                lambda: kaggle_images(
                    self.recordings.spectrogram(int(row["spectrogram_id"])),
                    int(row["spectrogram_start"]),
                )
            ),
            "eeg": _image(
                lambda: eeg_images(self.recordings.eeg(int(row["eeg_id"])), int(row["eeg_start"]))
            ),
        }


def row_address(row_id: str) -> str:
    """Path and fragment of the page that shows a row."""
    return f"/#{urlencode({'row': row_id})}"


def _image(make: Callable[[], PowerImages]) -> dict[str, Any]:
    try:
        made = make()
    except DataError as error:
        return {"problem": str(error)}
    return {
        "shape": made.cells.shape,
        "cells": _base64(made.cells),
        "decibels": made.decibels,
        "start_s": made.start_s,
        "end_s": made.end_s,
        "max_hz": made.max_hz,
        "unit": made.unit,
    }


def _base64(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def _number(query: Query, name: str, default: float) -> float:
    text = query.get(name, "")
    with suppress(ValueError):
        if math.isfinite(number := float(text or default)):
            return number
    raise StudyError(f"{name} must be a number", got=text, fix="Leave it out.")


class RowApp:
    """The WSGI application of the row browser.

    Answers are JSON. A question that has no answer, such as a row whose recording is missing,
    is answered with ``{"problem": TEXT}``, so that the rest of the page can be shown.

    Args:
        browser: makes the answers.
    """

    def __init__(self, browser: RowBrowser) -> None:
        self._browser = browser
        self._page = page_html(browser.about()).encode()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answers one request."""
        path = environ.get("PATH_INFO", "/")
        query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        status, kind = "200 OK", "application/json"
        if path == "/":
            kind, body = "text/html; charset=utf-8", self._page
        elif path in _ANSWERS:
            try:
                content = _ANSWERS[path](self._browser, query)
            except HmsRayError as error:
                content = {"problem": str(error)}
            body = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
        else:
            status, kind, body = "404 Not Found", "text/plain", b"There is no such page.\n"
        headers = [
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        start_response(status, headers)
        return [body]


def _eeg(browser: RowBrowser, query: Query) -> dict[str, Any]:
    usual = Filters()
    filters = Filters(
        _number(query, "high_pass", usual.high_pass_hz),
        _number(query, "low_pass", usual.low_pass_hz),
        _number(query, "notch", usual.notch_hz),
    )
    span, width = int(_number(query, "span", OWN_S)), int(_number(query, "width", 1000))
    return browser.eeg(query.get("row", ""), span, filters, width)


_ANSWERS: Final[dict[str, Callable[[RowBrowser, Query], dict[str, Any]]]] = {
    "/list": lambda browser, query: browser.page(query),
    "/row": lambda browser, query: browser.row(query.get("row", "")),
    "/eeg": _eeg,
    "/spectrograms": lambda browser, query: browser.spectrograms(query.get("row", "")),
}
