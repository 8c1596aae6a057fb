"""Waiting for what another machine has written to become visible on this one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

VISIBLE_TIMEOUT_S: Final = 60.0
"""Within this time a shared file system shows what another machine has written."""
_POLL_S: Final = 0.5


def wait_until(visible: Callable[[], bool]) -> bool:
    """Waits until a condition holds, for ``VISIBLE_TIMEOUT_S`` at most; whether it holds."""
    deadline = time.monotonic() + VISIBLE_TIMEOUT_S
    while not visible():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True
