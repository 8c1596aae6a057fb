"""The row browser's page, and the same page as a file for one row."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

_FILES: Final = Path(__file__).parent / "rows_page_files"


def page_html(about: Mapping[str, Any], answers: Mapping[str, Any] | None = None) -> str:
    """The page as one HTML text that loads nothing from elsewhere.

    Args:
        about: see ``RowBrowser.about``.
        answers: of one row, which make the page a file that needs no server; see
            ``rows_files.answers_of``. Default: the page asks its server.
    """
    title = f"Rows of {about['study']}"
    if answers is not None:
        title = f"Row {answers['row']['id']} of {about['study']}"
    content = {"about": about, "answers": answers}
    text = page_file("rows.html")
    for name, value in (
        ("{{title}}", html.escape(title)),
        ("{{style}}", page_file("rows.css")),
        ("{{script}}", page_file("rows_draw.js") + page_file("rows.js")),
        # Last: nothing is replaced inside of the user's names.
        ("{{content}}", script_json(content)),
    ):
        text = text.replace(name, value)
    return text


def script_json(content: Any) -> str:
    """Plain data as JSON that cannot end the script element that it stands in."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


@cache
def page_file(name: str) -> str:
    """The text of one of the files that the page is made of, such as ``rows.css``."""
    return (_FILES / name).read_text(encoding="utf-8")
