"""The real sample."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.oof_sample import Sample, oof_sample


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder named by HMS_REAL_DATA; tests are skipped if it is not set."""
    folder = os.environ.get("HMS_REAL_DATA")
    if not folder:
        pytest.skip("set HMS_REAL_DATA to the folder of the real sample")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def sample(real_data: Path) -> Sample:
    """Public models' out-of-fold predictions."""
    folder = real_data / "oof"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    return oof_sample(folder)
