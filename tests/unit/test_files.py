from pathlib import Path

import pytest

from hms_ray.storage.atomic import DRAFT_PREFIX, replacing


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "new" / "events.out.tfevents.csv"
    for content in ("first", "second"):
        with replacing(file) as draft:
            draft.write_text(content)
            assert draft.parent == file.parent
            assert draft.name.startswith(DRAFT_PREFIX)
            assert "tfevents" not in draft.name
            assert draft.suffix == ""
            before = file.read_text() if file.exists() else None
            assert before == (None if content == "first" else "first")
        assert file.read_text() == content
    assert list(file.parent.iterdir()) == [file]


def test_a_failure_leaves_the_file_and_no_draft(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")

    def write() -> None:
        with replacing(file) as draft:
            draft.write_text("hal")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        write()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_writers_at_the_same_time_have_drafts_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with replacing(file) as first, replacing(file) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    # The inner one ends first: the last one to end has the file.
    assert file.read_text() == "first"
