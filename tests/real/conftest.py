"""Where the real sample is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder named by HMS_REAL_DATA; the test is skipped where it is not set."""
    folder = os.environ.get("HMS_REAL_DATA")
    if not folder:
        pytest.skip("HMS_REAL_DATA is not set: it names the folder with the real sample")
    return Path(folder).resolve()
