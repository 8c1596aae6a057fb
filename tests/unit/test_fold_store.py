from pathlib import Path

import pandas as pd
import pytest

from hms_ray.errors import StudyError
from hms_ray.storage.fold_store import FoldStore

KEY = "ab" + "0" * 62
OOF = pd.DataFrame({"row_id": ["1-0", "2-0"], "seizure_vote": [0.25, 0.75]})


def store_with(folder: Path, content: bytes = b"weights") -> FoldStore:
    store = FoldStore(folder)
    store.write(KEY, OOF, {"seconds": 1.5, "saved_s": 0.0}, lambda path: path.write_bytes(content))
    return store


def test_written_result_is_read_back(tmp_path: Path) -> None:
    store = store_with(tmp_path)
    stored = store.read(KEY)
    pd.testing.assert_frame_equal(stored.oof, OOF)
    assert stored.record["seconds"] == 1.5
    assert stored.weights.read_bytes() == b"weights"
    assert store.path(KEY) == tmp_path / ".store" / "ab" / KEY


def test_missing_key_is_refused(tmp_path: Path) -> None:
    store = FoldStore(tmp_path)
    assert not store.has(KEY)
    with pytest.raises(StudyError, match=f"cache key {KEY}"):
        store.read(KEY)


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    store = FoldStore(tmp_path)

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.write(KEY, OOF, {}, fail)
    assert not store.has(KEY)
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


def test_second_write_of_a_key_is_ignored(tmp_path: Path) -> None:
    store = store_with(tmp_path)
    store_with(tmp_path, b"other")
    assert store.read(KEY).weights.read_bytes() == b"weights"


def test_concurrent_second_writer_keeps_the_first_result(tmp_path: Path) -> None:
    store = FoldStore(tmp_path)

    def overtaken(path: Path) -> None:
        store_with(tmp_path, b"first")
        path.write_bytes(b"second")

    store.write(KEY, OOF, {}, overtaken)
    assert store.read(KEY).weights.read_bytes() == b"first"
    assert not list(store.root.rglob(".draft-*"))


@pytest.mark.parametrize("name", ["oof.parquet", "weights.pt"])
def test_damaged_result_is_refused_and_kept(tmp_path: Path, name: str) -> None:
    store = store_with(tmp_path)
    file = store.path(KEY) / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StudyError, match=f"{name} does not match its checksum"):
        store.read(KEY)
    assert file.is_file()


def test_records_with_nan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        FoldStore(tmp_path).write(KEY, OOF, {"a": float("nan")}, lambda path: path.write_bytes(b""))


def test_folder_without_record_is_refused_when_written(tmp_path: Path) -> None:
    store = store_with(tmp_path)
    (store.path(KEY) / "record.json").unlink()
    with pytest.raises(StudyError, match=r"no record\.json") as caught:
        store_with(tmp_path)
    assert caught.value.where == store.path(KEY)
