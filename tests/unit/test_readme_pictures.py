"""The committed pictures: all of them, small, and of the present demo."""

from PIL import Image

from tests.readme_pictures import DEMO_KEY, MAX_BYTES, PICTURES, PLACE, demo_fingerprint


def test_pictures_are_all_there_and_together_small() -> None:
    files = list(PLACE.iterdir())
    assert {file.name for file in files} == {f"{name}.png" for name in PICTURES}
    assert sum(file.stat().st_size for file in files) < MAX_BYTES


def test_pictures_were_made_from_the_present_demo() -> None:
    """After a change of the demo: ``make demo``, then ``make pictures``."""
    for name in PICTURES:
        with Image.open(PLACE / f"{name}.png") as picture:
            assert picture.info[DEMO_KEY] == demo_fingerprint(), name
