"""The README's pictures are made from a study, small and with their caption."""

import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.readme_pictures import Demo, banner, demo_copy, finished, row_browser
from tests.row_study import make_row_study

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def results(two_patients_with_eegs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with a study in the place of the demo."""
    study = make_row_study(tmp_path_factory.mktemp("study"), two_patients_with_eegs)
    place = study.path.parent
    study.path.rename(place / "demo")
    shutil.copytree(two_patients_with_eegs, place / ".demo")
    return place


def test_pictures_of_rows_are_made_and_small(browser: "Browser", results: Path) -> None:
    before = sorted(results.rglob("*"))
    with demo_copy(results) as place:
        for make in (banner, row_browser):
            png, caption = make(Demo(place, browser))
            packed = finished(png, caption)
            image = Image.open(io.BytesIO(packed))
            assert image.mode == "P"
            assert image.width > 1_000
            assert len(packed) < 600_000
            # It is not blank: in a tenth of its lines there is ink.
            ink = np.asarray(image.convert("L")) < 80
            assert ink.any(axis=1).mean() > 0.1
    assert sorted(results.rglob("*")) == before, "the demo's results are only read"


def test_a_picture_says_that_its_data_is_simulated() -> None:
    blank = io.BytesIO()
    Image.new("RGB", (900, 50), "white").save(blank, "PNG")
    with pytest.MonkeyPatch.context() as patch:
        texts: list[str] = []

        def note(self: object, place: object, text: str, **others: object) -> None:
            texts.append(text)

        patch.setattr("PIL.ImageDraw.ImageDraw.text", note)
        finished(blank.getvalue(), "An EEG")
    assert texts == ["An EEG; simulated data"]
