"""Search spaces are found by name, local files first."""

from pathlib import Path

import pytest

from hms_ray.config.loading import load_space
from hms_ray.config.shipped import FOLDER, find_space
from hms_ray.errors import ConfigError


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("demo", "demo.yaml"),
        ("search_spaces/demo.yaml", "demo.yaml"),
        ("ladder/09_panels_4", "ladder/09_panels_4.yaml"),
        ("ladder/9_panels_4", "ladder/09_panels_4.yaml"),
    ],
)
def test_shipped_spaces_are_found_by_name(name: str, file: str) -> None:
    assert find_space(name) == FOLDER / file
    load_space(find_space(name))


@pytest.mark.parametrize("name", ["demo", "demo.yaml"])
def test_a_local_file_goes_before_a_shipped_one(name: str, empty: Path) -> None:
    (empty / name).touch()
    assert find_space("demo") == Path(name)


def test_a_folder_of_that_name_is_no_file(empty: Path) -> None:
    (empty / "demo").mkdir()
    assert find_space("demo") == FOLDER / "demo.yaml"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("dmeo", "demo"), ("ladder/9_panel_4", "ladder/9_panels_4"), ("xyz", "known: demo, ")],
)
def test_an_unknown_name_lists_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_space(name)
    assert name in str(caught.value)
    assert nearest in str(caught.value)


@pytest.mark.parametrize("name", ["ladder/ladder", "ladder/small", "ladder/3_ensemble_fixed"])
def test_what_is_no_experiment_is_not_found(name: str) -> None:
    with pytest.raises(ConfigError):
        find_space(name)


def test_full_size_spaces_keep_rows_without_a_usable_signal() -> None:
    """A few such rows must not stop a search of days."""
    files = [*FOLDER.glob("*.yaml"), *FOLDER.glob("ladder/[0-9]*.yaml")]
    full_size = [file for file in files if file.stem != "demo"]
    assert len(full_size) > 30
    kept = {file.stem: load_space(file).experiment.data.unusable for file in full_size}
    assert set(kept.values()) == {"keep"}, kept
