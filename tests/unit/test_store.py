"""The command store: what it lists, what it finds damaged, and what goes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hms_ray.cli.main import main
from hms_ray.errors import ConfigError, StudyError
from hms_ray.storage import store_free
from hms_ray.storage.atomic import whole_folder
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.locks import StudyLock, running_since
from hms_ray.storage.store_contents import StoreEntry, store_entries
from hms_ray.storage.store_free import Choice, choose, free
from tests.refused import refusal

DAY = 24 * 3600.0
MEGABYTE = 1_000_000


def key_of(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Results with six folds of one megabyte, used 60, 50, ... days ago.

    Study ``first`` uses folds 0 and 1, ``second`` 1 and 2, a ladder 3; nothing uses 4 and 5.
    """
    for number in range(6):
        put(tmp_path, number, days=60 - 10 * number)
    for name, numbers in {"first": (0, 1), "second": (1, 2)}.items():
        trial = tmp_path / name / "trials" / "0000"
        trial.mkdir(parents=True)
        keys = {str(fold): key_of(number) for fold, number in enumerate(numbers)}
        (trial / "result.json").write_text(json.dumps({"keys": keys}))
        (tmp_path / name / "study.json").touch()
    (tmp_path / "ladder").mkdir()
    (tmp_path / "ladder" / "steps.json").write_text(f"damaged, {key_of(3)}")
    return tmp_path


def put(results: Path, number: int, *, days: float) -> None:
    oof = pd.DataFrame({"row_id": ["1-0"]})
    record = {"seconds": 1.0, "saved_s": 0.0}
    key, store = key_of(number), FoldStore(results)
    store.write(key, oof, record, lambda path: path.write_bytes(bytes(MEGABYTE)))
    age(store.path(key), days)


def age(path: Path, days: float) -> None:
    os.utime(path, (0, time.time() - days * DAY))


def left(results: Path) -> list[int]:
    return [int(entry.name, 16) for entry in store_entries(results) if entry.kind == "fold"]


def freed(results: Path, *, dry_run: bool = False, **choice: Any) -> list[int]:
    return [int(entry.name, 16) for entry, _ in free(results, Choice(**choice), dry_run=dry_run)]


def test_list_shows_users_sizes_and_ages(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "--results", str(store)]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert " ".join(text.split()).startswith(f"Fold store {store / '.store'}: 6 entries, 6.0 MB")
    rows = {line[:14].strip(): line.split()[-6:] for line in lines}
    assert rows["first"] == ["1.0", "MB", "60", "days", "60", "days"]
    assert rows["first, second"] == ["1.0", "MB", "50", "days", "50", "days"]
    assert rows["no study"] == ["2.0", "MB", "10", "days", "20", "days"]
    assert lines[-1].startswith("next: hms-ray store --free --age 30 --dry-run")
    assert main(["store", "--results", str(store), "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["entries"]
    assert [entry["used_by"] for entry in entries] == [
        *(["first"], ["first", "second"], ["second"], ["ladder"], [], []),
    ]
    assert entries[0]["name"] == key_of(0)


def test_store_of_no_results_is_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "--results", str(tmp_path)]) == 0
    assert "0 entries" in capsys.readouterr().out


def test_missing_results_folder_is_refused(tmp_path: Path, error_line: Callable[..., str]) -> None:
    assert "must exist, got" in error_line("store", "--results", tmp_path / "none")


@pytest.mark.parametrize(
    ("choice", "gone"),
    [
        ({}, []),
        ({"age_days": 15}, [4]),
        ({"age_days": 0}, [4, 5]),
        ({"studies": ("first",)}, [0]),
        ({"studies": ("first", "second")}, [0, 1, 2]),
        ({"studies": ("first",), "force": True}, [0, 1]),
        ({"studies": ("first", "second"), "age_days": 45}, [0, 1]),
        ({"studies": ("ladder",)}, [3]),
        ({"age_days": 35, "force": True}, [0, 1, 2]),
        ({"max_bytes": 5.5 * MEGABYTE}, [4]),
        ({"max_bytes": 1 * MEGABYTE}, [4, 5]),
        ({"max_bytes": 3.5 * MEGABYTE, "force": True}, [0, 1, 2]),
        ({"max_bytes": 100 * MEGABYTE}, []),
    ],
)
def test_conditions_narrow_each_other_and_used_folds_stay(
    store: Path, choice: dict[str, Any], gone: list[int]
) -> None:
    assert freed(store, dry_run=True, **choice) == gone
    assert left(store) == list(range(6)), "a dry run removes nothing"
    assert freed(store, **choice) == gone
    assert left(store) == [number for number in range(6) if number not in gone]
    assert not list((store / ".store").glob(".freed-*"))


def test_folds_used_within_a_day_stay_unless_their_study_is_named(store: Path) -> None:
    for number in (0, 4):
        age(FoldStore(store).path(key_of(number)), 0.5)
    assert freed(store, age_days=0) == [5]
    assert freed(store, studies=("first",)) == [0]


def test_folds_that_a_running_command_may_need_stay(store: Path) -> None:
    (store / "third").mkdir()
    entries = store_entries(store)
    started = time.time() - 15 * DAY
    chosen = choose(entries, Choice(age_days=0), now=time.time(), running=[started])
    assert [int(entry.name, 16) for entry, _ in chosen] == [4], "5 was used after its start"
    with StudyLock(store / "third"):
        assert running_since(store / "third") is not None
        assert freed(store, age_days=0) == [4, 5], "it started now"
    assert running_since(store / "third") is None


def test_fold_reused_after_it_was_listed_stays(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose_from = store_free.choose

    def late(*given: Any, **named: Any) -> Any:
        chosen = choose_from(*given, **named)
        FoldStore(store).read(key_of(4))
        return chosen

    monkeypatch.setattr(store_free, "choose", late)
    assert freed(store, age_days=0) == [5]
    assert 4 in left(store)


def test_study_that_runs_is_not_freed(store: Path) -> None:
    with (
        StudyLock(store / "first"),
        refusal(StudyError, "locked by another process", where="first", fix="Wait"),
    ):
        free(store, Choice(studies=("first",)))
    assert len(left(store)) == 6


def test_unknown_study_is_refused_with_the_nearest(store: Path) -> None:
    with refusal(StudyError, "must name a study", got="frist (did you mean first?)", fix="List"):
        free(store, Choice(studies=("frist",)))


@pytest.mark.parametrize("name", ["age_days", "max_bytes"])
@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_numbers_below_0_are_refused(name: str, value: float) -> None:
    with refusal(ConfigError, "at least 0", got=str(value), fix="Give --"):
        Choice(**{name: value})


def leftovers(results: Path) -> dict[str, Path]:
    """Drafts and damaged results in the store."""
    shard = FoldStore(results).root / "ab"
    made = {name: shard / f".draft-{name}" for name in ("empty", "weights", "old weights")}
    for name, path in made.items():
        path.mkdir(parents=True)
        Path(f"{path}.lock").touch()
        if "weights" in name:
            (path / "weights.pt").touch()
        age(path, 40 if name.startswith("old") else 2)
    made["damaged"] = FoldStore(results).root / "damaged" / f"{key_of(9)}-0a"
    made["freed"] = FoldStore(results).root / ".freed-0a"
    for name in ("damaged", "freed"):
        made[name].mkdir(parents=True)
    return made


@pytest.mark.parametrize(
    ("choice", "stay"),
    [({}, {"weights", "old weights"}), ({"age_days": 30}, {"weights"}), ({"age_days": 1}, set())],
)
def test_drafts_and_damaged_results_go(store: Path, choice: dict[str, Any], stay: set[str]) -> None:
    made = leftovers(store)
    with whole_folder(FoldStore(store).path(key_of(9))) as live:
        age(live, 90)
        free(store, Choice(**choice))
        assert live.is_dir(), "it is being written"
    assert {name for name, path in made.items() if path.exists()} == stay
    locks = {path.name for path in (FoldStore(store).root / "ab").glob("*.lock")}
    assert locks == {f".draft-{name}.lock" for name in stay}


def test_row_tables_go_by_age_but_not_while_a_command_runs(store: Path) -> None:
    rows = store / ".store" / "rows" / "a.parquet"
    rows.parent.mkdir()
    rows.touch()
    age(rows, 40)
    free(store, Choice(studies=("first",)))
    with StudyLock(store / "second"):
        free(store, Choice(age_days=30))
    assert rows.exists()
    free(store, Choice(age_days=30))
    assert not rows.exists()


@pytest.mark.parametrize("damage", ["weights.pt", "record.json", "oof.parquet"])
def test_verify_names_damaged_folds_and_free_removes_them(
    store: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["store", "--results", str(store), "--verify"]
    assert main(words) == 0
    assert "6 stored folds complete and unchanged" in capsys.readouterr().out
    folder = FoldStore(store).path(key_of(1))
    (folder / damage).unlink()
    assert main(words) == 1
    printed = capsys.readouterr().out
    assert "5 stored folds complete and unchanged" in printed
    assert damage in printed
    assert folder.is_dir(), "verifying changes nothing"
    assert main([*words, "--free", "--dry-run", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    (found,) = content["damaged"]
    assert (found["name"], content["freed"]) == (key_of(1), [found])
    assert main([*words, "--free"]) == 0
    assert left(store) == [0, 2, 3, 4, 5]


def test_freed_entries_are_printed_with_the_reason(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["store", "--results", str(store), "--free", "--size", "0.003", "--age", "1"]
    assert main([*words, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "To be freed: 2 entries, 2.0 MB; 4.0 MB stay"
    assert [line.split()[1] for line in lines[3:5]] == [key_of(4)[:12], key_of(5)[:12]]
    assert all(line.endswith("in no study") for line in lines[3:5])
    words_next = f"store --free --age 1 --size 0.003 --results {store}"
    assert lines[5:] == [f"next: hms-ray {words_next}"]
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("Freed: 2 entries, 2.0 MB; 4.0 MB stay")


@pytest.mark.parametrize("option", ["--study=x", "--age=1", "--size=1", "--force", "--dry-run"])
def test_conditions_need_free(option: str, error_line: Callable[..., str]) -> None:
    assert f"{option.partition('=')[0]} needs --free" in error_line("store", option)


def test_user_of_another_version_is_counted(store: Path) -> None:
    by_name = {entry.name: entry for entry in store_entries(store)}
    assert isinstance(by_name[key_of(3)], StoreEntry)
    assert by_name[key_of(3)].used_by == ("ladder",), "its steps.json is damaged"


@pytest.mark.parametrize(("place", "user"), [("blend", "blend"), ("second/blend", "second")])
def test_fold_that_only_a_blend_uses_stays(store: Path, place: str, user: str) -> None:
    (store / place).mkdir()
    keys = {"keys": {"0": key_of(4)}}
    (store / place / "blend.json").write_text(json.dumps({"members": [keys]}))
    assert freed(store, age_days=0) == [5]
    (entry,) = [entry for entry in store_entries(store) if entry.name == key_of(4)]
    assert entry.used_by == (user,)
