"""Settings of all tests, and what several of them start from."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from hms_ray.cli.main import main
from hms_ray.pack.build import build_pack, default_pack_dir
from hms_ray.pack.store import Pack
from tests.competition_folder import write_competition_folder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from hms_ray.dataset.prepare import Prepared

# The same examples in every run: a red test is then red for everyone.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
# The same width of tables in every terminal, pipe and worker process.
os.environ["COLUMNS"] = "120"


@pytest.fixture(scope="module")
def one_process() -> Iterator[None]:
    """Packs in this process: starting another takes longer than small packs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hms_ray.pack.build.default_workers", lambda: 1)
        yield


@pytest.fixture
def error_line(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command line that must fail, and returns its one line of error."""

    def call(*words: object) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        text = capsys.readouterr().err
        assert text.startswith("hms-ray")
        assert text.count("\n") == 1
        return text

    return call


@pytest.fixture(scope="module")
def two_patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A competition folder of two patients and three spectrograms; only read."""
    return write_competition_folder(
        tmp_path_factory.mktemp("data") / "competition", n_patients=2, eegs=False
    )


@pytest.fixture(scope="module")
def kaggle_pack(two_patients: Path) -> Pack:
    """The pack of ``two_patients`` in its default place; only read."""
    return build_pack(two_patients, default_pack_dir(two_patients))


@pytest.fixture
def pack_copy(kaggle_pack: Pack, tmp_path: Path) -> Path:
    """A copy of ``kaggle_pack`` that a test may damage."""
    return Path(shutil.copytree(kaggle_pack.path, tmp_path / kaggle_pack.path.name))


@pytest.fixture(scope="session")
def two_patients_with_eegs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients; EEGs 500000-500021, spectrograms 41000 (of two EEGs), 40002 and 40003."""
    return write_competition_folder(tmp_path_factory.mktemp("data") / "original", n_patients=2)


@pytest.fixture
def folder(two_patients_with_eegs: Path, tmp_path: Path) -> Path:
    """A copy of ``two_patients_with_eegs`` that a test may damage."""
    return Path(shutil.copytree(two_patients_with_eegs, tmp_path / "competition"))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder with study ``one`` of three trials and ``two`` of one, on the same rows."""
    from tests.blend_data import add_trials, make_study

    add_trials(make_study(tmp_path, "one"), range(3), optimistic=[1])
    add_trials(make_study(tmp_path, "two"), [4])
    return tmp_path / "results"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """``mine.csv``, predictions of the same rows made elsewhere."""
    from tests.blend_data import make_file

    return make_file(tmp_path)


@pytest.fixture
def prepared(tmp_path: Path) -> "Prepared":
    """Two rows of two patients, without packs."""
    from tests.study_data import prepared_rows

    return prepared_rows(tmp_path)


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of ``test_efficientnet`` as in timm's hub: three channels, 1,000 classes."""
    import timm
    import torch

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(timm.create_model("test_efficientnet").state_dict(), file)
    return file


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A headless Chromium; the test is skipped if there is none."""
    from tests.browser import started_browser

    with started_browser() as found:
        yield found


@pytest.fixture
def page(browser: "Browser") -> "Iterator[Page]":
    """A page; the test fails if a script fails or a request leaves the machine."""
    from tests.browser import checked_page

    with checked_page(browser) as made:
        yield made
