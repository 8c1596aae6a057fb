import os
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hms_ray.errors import StudyError
from hms_ray.storage import fold_store
from hms_ray.storage.fold_store import FoldStore, StoredFoldError, fault_of
from tests.refused import refusal

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


def damage(store: FoldStore, name: str) -> None:
    file = store.path(KEY) / name
    if name == "record.json":
        file.write_text("{")
    else:
        file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("oof.parquet", "oof.parquet does not match its checksum"),
        ("weights.pt", "weights.pt does not match its checksum"),
        ("record.json", "an unreadable record.json"),
    ],
)
def test_damaged_result_is_set_aside(
    tmp_path: Path, name: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_with(tmp_path)
    damage(store, name)
    assert fault_of(store.path(KEY)) == fault
    with refusal(StoredFoldError, "complete and unchanged", got=fault, fix="Train it again"):
        store.read(KEY)
    assert not store.has(KEY)
    (aside,) = (store.root / "damaged").iterdir()
    assert aside.name.startswith(KEY)
    assert f"moved to {aside}" in caplog.text
    store_with(tmp_path, b"again")
    assert store.read(KEY).weights.read_bytes() == b"again"


def test_find_gives_nothing_for_missing_and_damaged_results(tmp_path: Path) -> None:
    store = store_with(tmp_path)
    assert store.find(KEY) is not None
    damage(store, "weights.pt")
    assert store.find(KEY) is None
    assert store.find(KEY) is None


def test_result_that_another_process_stored_meanwhile_is_not_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_with(tmp_path)
    damage(store, "weights.pt")
    check = fold_store.check_files

    def overtaken(folder: Path, record: dict[str, Any]) -> None:
        if not list(store.root.glob("damaged/*")):
            other = FoldStore(tmp_path)
            other.set_aside(KEY, "damaged")
            store_with(tmp_path, b"new")
            raise fold_store.damaged_fold(folder, "read before it was replaced")
        check(folder, record)

    monkeypatch.setattr(fold_store, "check_files", overtaken)
    assert store.find(KEY) is None, "this reader saw the damaged one"
    found = store.find(KEY)
    assert found is not None
    assert found.weights.read_bytes() == b"new"


def test_result_that_cannot_be_moved_is_refused_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_with(tmp_path)
    damage(store, "weights.pt")

    def fail(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(fold_store.os, "rename", fail)
    with refusal(StoredFoldError, got="weights.pt", where=str(store.path(KEY))):
        store.read(KEY)


def test_remedy_names_the_trial_that_used_a_fold(tmp_path: Path) -> None:
    trial = tmp_path / "first" / "trials" / "0003"
    trial.mkdir(parents=True)
    (trial / "result.json").write_text(f'{{"keys": {{"0": "{KEY}"}}}}')
    command = f"hms-ray train {trial}/experiment.yaml --data DIR --folds"
    with refusal(StoredFoldError, "must be in the store", fix=command):
        FoldStore(tmp_path).read(KEY)


def test_records_with_nan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        FoldStore(tmp_path).write(KEY, OOF, {"a": float("nan")}, lambda path: path.write_bytes(b""))


def test_folder_without_record_is_set_aside_when_written(tmp_path: Path) -> None:
    store = store_with(tmp_path)
    (store.path(KEY) / "record.json").unlink()
    store_with(tmp_path, b"again")
    assert store.read(KEY).weights.read_bytes() == b"again"
    assert len(list((store.root / "damaged").iterdir())) == 1


def test_reading_marks_a_result_as_used_now(tmp_path: Path) -> None:
    store = store_with(tmp_path)
    os.utime(store.path(KEY), (0, 0))
    store.read(KEY)
    assert time.time() - store.path(KEY).stat().st_mtime < 60
