"""Names of studies and ladders, and folders of other kinds."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hms_ray.blend.fit_command import blend
from hms_ray.blend.settings import Settings
from hms_ray.dataset.prepare import Prepared
from hms_ray.errors import StudyError
from hms_ray.ladder.command import ladder_folder
from hms_ray.ladder.multi_seed import combine
from hms_ray.storage.folder_names import RESERVED, checked_name, kind_of, require_kind
from hms_ray.study.new import create_study
from tests.refused import refusal
from tests.study_data import make_space

FILES = {
    "study": "study.json",
    "ladder": "steps.json",
    "blend": "blend.json",
    "combination of ladders": "forest.csv",
    "competition folder": "train.csv",
}


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "a\\b", "-x"])
def test_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with refusal(StudyError, "a plain folder name", got=repr(name), fix="--study NAME"):
        checked_name(name)


@pytest.mark.parametrize("name", ["local", "blend", "forest", "Blend"])
def test_name_of_another_commands_folder_is_refused(name: str) -> None:
    with refusal(StudyError, "name of another folder", got=f"{name}, the folder of", fix="--study"):
        checked_name(name)


@pytest.mark.parametrize("name", ["mine.csv", "mine.PARQUET"])
def test_name_of_a_table_is_refused(name: str) -> None:
    with refusal(StudyError, "name of a table", got=name, fix="--study NAME"):
        checked_name(name)


@pytest.mark.parametrize("name", ["first", "first.2", "ladder", "blend-2", "9_panels_4"])
def test_other_names_are_allowed(name: str) -> None:
    assert checked_name(name) == name


def test_folders_of_commands_are_reserved(results: Path) -> None:
    blend(["one", "two"], results, Settings(rows="common"))
    (written,) = [path.name for path in results.iterdir() if kind_of(path) == "blend"]
    assert written in RESERVED


@pytest.mark.parametrize("kind", FILES)
def test_kind_of_a_folder_is_known_by_its_file(tmp_path: Path, kind: str) -> None:
    assert kind_of(tmp_path / "missing") is None
    assert kind_of(tmp_path) is None
    (tmp_path / FILES[kind]).touch()
    assert kind_of(tmp_path) == kind
    require_kind(tmp_path, kind, "--out DIR")


def commands(place: Path, prepared: Prepared) -> dict[str, Callable[[], object]]:
    """Kind -> the command that writes it, into ``place``."""
    return {
        "study": lambda: create_study(place.parent, place.name, make_space(), prepared),
        "ladder": lambda: ladder_folder(place.parent, place.name),
        "blend": lambda: blend(["none"], place.parent, Settings(out=place)),
        "combination of ladders": lambda: combine(["none"], [], place.parent, place),
    }


@pytest.mark.parametrize("found", FILES)
@pytest.mark.parametrize("kind", [kind for kind in FILES if kind != "competition folder"])
def test_folder_of_another_kind_is_refused_before_any_work(
    tmp_path: Path, prepared: Prepared, kind: str, found: str
) -> None:
    if kind == found:
        return
    place = tmp_path / "mine"
    place.mkdir()
    (place / FILES[found]).touch()
    rule, got = f"a {kind} needs a folder of its own", f"a {found}"
    with refusal(StudyError, rule, got=got, where="mine", fix="Use another name: --"):
        commands(place, prepared)[kind]()
    assert [file.name for file in place.iterdir()] == [FILES[found]]


def test_ladder_leaves_a_folder_of_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").touch()
    with refusal(StudyError, "folder of its own", got="README.md", where="notes", fix="--study"):
        ladder_folder(tmp_path, "notes")
    # What is committed of a ladder, and what a killed run leaves, is a ladder's.
    for file in ("ladder.csv", "log.txt"):
        (tmp_path / "notes" / file).touch()
        assert ladder_folder(tmp_path, "notes").is_dir()
        (tmp_path / "notes" / file).unlink()
