"""The real sample."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder named by HMS_REAL_DATA; tests are skipped if it is not set."""
    folder = os.environ.get("HMS_REAL_DATA")
    if not folder:
        pytest.skip("set HMS_REAL_DATA to the folder of the real sample")
    return Path(folder).resolve()
