"""One Ray for all modules, and data for worker groups."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import hms_ray.sweep  # noqa: F401 - sets RAY_AUTH_MODE before any test module imports ray
from hms_ray.dataset.prepare import Prepared, prepare
from hms_ray.distributed.cluster import Cluster, session
from tests.competition_folder import write_competition_folder
from tests.ray.worker_groups import EXPERIMENT


@pytest.fixture(scope="session")
def connected() -> Iterator[Cluster]:
    """An embedded Ray; starting it takes several seconds."""
    with session() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def two_folds(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Data of ``EXPERIMENT``; only read."""
    base: Path = tmp_path_factory.mktemp("data")
    data = write_competition_folder(base / "data", 12)
    return prepare(data, EXPERIMENT, base / "results")
