import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hms_ray.storage import atomic
from hms_ray.storage.atomic import IfExists, whole_file, whole_folder
from hms_ray.storage.drafts import DRAFT_PREFIX


def test_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "new" / "events.out.tfevents.csv"
    for content in ("first", "second"):
        with whole_file(file) as draft:
            draft.write_text(content)
            assert draft.parent == file.parent
            assert draft.name.startswith(DRAFT_PREFIX)
            assert "tfevents" not in draft.name
            assert draft.suffix == ""
            before = file.read_text() if file.exists() else None
            assert before == (None if content == "first" else "first")
        assert file.read_text() == content
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_failure_leaves_what_was_there_and_no_draft(tmp_path: Path, whole: Callable) -> None:
    place = tmp_path / "place"
    if whole is whole_file:
        place.write_text("old")

    def write() -> None:
        with whole(place) as draft:
            (draft if whole is whole_file else draft / "file").write_text("hal")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        write()
    assert list(tmp_path.iterdir()) == ([place] if whole is whole_file else [])
    assert whole is whole_folder or place.read_text() == "old"


def test_concurrent_writers_have_drafts_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with whole_file(file) as first, whole_file(file) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    # The inner one ends first: the last one to end has the file.
    assert file.read_text() == "first"


@pytest.mark.parametrize(("if_exists", "kept"), [("keep", "old"), ("replace", "new")])
def test_folder_that_exists_is_kept_or_replaced(
    tmp_path: Path, if_exists: IfExists, kept: str
) -> None:
    for content in ("old", "new"):
        with whole_folder(tmp_path / "above" / "folder", if_exists=if_exists) as draft:
            (draft / content).mkdir()
            (draft / content / "file").write_text(content)
    assert [file.name for file in (tmp_path / "above").iterdir()] == ["folder"]
    assert (tmp_path / "above" / "folder" / kept / "file").read_text() == kept


def test_folder_goes_onto_an_empty_one_but_not_onto_content(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with whole_folder(folder) as draft:
        (draft / "file").touch()
    with pytest.raises(OSError, match="not empty"), whole_folder(folder) as draft:
        (draft / "other").touch()
    assert [file.name for file in folder.iterdir()] == ["file"]
    assert list(tmp_path.iterdir()) == [folder]


def write(folder: Path, content: str, **options: Any) -> None:
    with whole_folder(folder, if_exists="replace", **options) as draft:
        (draft / "file").write_text(content)


@pytest.mark.parametrize(("kept", "content"), [("old", "old"), ("none", "new")])
def test_folder_is_replaced_unless_its_content_is_to_be_kept(
    tmp_path: Path, kept: str, content: str
) -> None:
    folder = tmp_path / "folder"
    write(folder, "old")
    write(folder, "new", keep_if=lambda old: (old / "file").read_text() == kept)
    assert (folder / "file").read_text() == content
    assert list(tmp_path.iterdir()) == [folder]


def test_folder_that_appears_during_a_replacement_is_looked_at_too(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    write(folder, "failure")

    def overtaken(old: Path) -> bool:
        if not folder.exists() and (old / "file").read_text() == "failure":
            write(folder, "success")
        return (old / "file").read_text() == "success"

    write(folder, "late failure", keep_if=overtaken)
    assert (folder / "file").read_text() == "success"
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("if_exists", ["keep", "replace"])
def test_folder_that_is_visible_late_is_kept_or_replaced(
    tmp_path: Path, if_exists: IfExists, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shared file system refuses a rename at once and shows the folder seconds later."""
    folder, rename, hidden = tmp_path / "folder", os.rename, [True]
    write(folder, "old")

    def late(source: Path, target: Path) -> None:
        if source == folder and hidden:
            hidden.clear()
            raise FileNotFoundError(errno.ENOENT, "not visible yet")
        rename(source, target)

    monkeypatch.setattr(atomic, "_PAUSES_S", (0.0,))
    monkeypatch.setattr(os, "rename", late)
    monkeypatch.setattr(Path, "is_dir", lambda path: path != folder and os.path.isdir(path))
    with whole_folder(folder, if_exists=if_exists) as draft:
        (draft / "file").write_text("new")
    assert (folder / "file").read_text() == ("old" if if_exists == "keep" else "new")
