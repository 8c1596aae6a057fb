"""Settings of all tests, and what several of them start from."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.competition_folder import write_competition_folder

# The same examples in every run: a red test is then red for everyone.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="module")
def one_process() -> Iterator[None]:
    """Packs in this process: starting another takes longer than small packs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hms_ray.pack.build.default_workers", lambda: 1)
        yield


@pytest.fixture(scope="module")
def two_patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A competition folder of two patients and three spectrograms; only read."""
    return write_competition_folder(
        tmp_path_factory.mktemp("data") / "competition", n_patients=2, eegs=False
    )
