"""A headless Chromium that notes errors on the console and requests that leave the machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

LOCAL_HOSTS = {"127.0.0.1", "localhost", "[::1]", "::1"}
LOCAL_SCHEMES = {"file", "data", "blob", "about"}


@contextmanager
def started_browser() -> Iterator[Browser]:
    """The system's Chromium; skips the test if there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root, which tests in containers are, Chromium refuses to start in its sandbox.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=options)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def checked_page(browser: Browser, **options: object) -> Iterator[Page]:
    """A new page of a context of its own.

    Fails at its end if a script failed, an error was printed on the console, or a request left
    the machine.

    Args:
        browser: see ``started_browser``.
        options: of ``Browser.new_context``, such as ``color_scheme="dark"``.
    """
    context = browser.new_context(**options)  # type: ignore[arg-type]
    page, faults = context.new_page(), list[str]()

    def note_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            faults.append(f"console: {message.text}")

    def note_request(request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in LOCAL_SCHEMES and parts.hostname not in LOCAL_HOSTS:
            faults.append(f"request: {request.url}")

    page.on("console", note_console)
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    page.on("request", note_request)
    try:
        yield page
    finally:
        context.close()
    assert not faults, faults
