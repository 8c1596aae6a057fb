"""Event files that grow, are torn, and are written again."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from hms_ray.display import event_file
from hms_ray.display.event_file import EventFile, read_events
from hms_ray.errors import StorageError
from tests.refused import refusal
from tests.tensorboard_reading import curve, scalars


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def open_file(run: Path) -> EventFile:
    return EventFile(run, run.parent)


def add(
    run: Path, *points: tuple[int, float], tag: str = "a", file: EventFile | None = None
) -> None:
    file = file or open_file(run)
    for step, value in points:
        file.add_scalars(100.0 + step, step, {tag: value})
    file.flush()


def only_file(run: Path) -> Path:
    (file,) = (file for file in run.iterdir() if file.stat().st_size)
    return file


def test_values_are_appended_once_by_any_writer(run: Path) -> None:
    add(run, (1, 1.0), (2, 2.0))
    before = only_file(run).read_bytes()
    add(run, (1, 9.0), (2, 9.0), (3, 3.0))
    assert only_file(run).read_bytes().startswith(before), "appended to"
    assert scalars(run) == {"a": [(101.0, 1, 1.0), (102.0, 2, 2.0), (103.0, 3, 3.0)]}
    file = open_file(run)
    assert file.has("a", 3)
    assert not file.has("a", 4)
    assert not file.has("b", 3)


def test_values_that_are_no_finite_numbers_are_skipped(run: Path) -> None:
    file = open_file(run)
    file.add_scalars(1.0, 1, {"a": None, "b": float("nan"), "c": float("inf"), "d": 1})
    file.flush()
    assert scalars(run) == {"d": [(1.0, 1, 1.0)]}


def test_nothing_to_write_makes_no_file(run: Path) -> None:
    file = open_file(run)
    file.add_scalars(1.0, 1, {"a": None})
    file.flush()
    assert not run.exists()


@pytest.mark.parametrize("lost", [1, 5, 20])
def test_torn_file_continues_after_its_last_whole_record(run: Path, lost: int) -> None:
    add(run, (1, 1.0), (2, 2.0))
    file = only_file(run)
    file.write_bytes(file.read_bytes()[:-lost])
    add(run, (2, 2.5), (3, 3.0))
    assert curve(run, "a") == [(1, 1.0), (2, 2.5), (3, 3.0)]
    assert only_file(run) != file, "TensorBoard may have read a part of the torn record"


def test_damaged_record_and_what_follows_it_are_written_again(run: Path) -> None:
    add(run, (1, 1.0), (2, 2.0), (3, 3.0))
    file = only_file(run)
    content = bytearray(file.read_bytes())
    ends = [end for end, _ in read_events(bytes(content))]
    content[ends[-3] + 14] ^= 1
    file.write_bytes(content)
    add(run, (2, 2.0), (3, 3.0))
    assert curve(run, "a") == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_steps_of_a_curve_stay_in_order(run: Path) -> None:
    add(run, (1, 1.0), (5, 5.0))
    add(run, (3, 3.0), (2, 2.0))
    assert curve(run, "a") == [(1, 1.0), (2, 2.0), (3, 3.0), (5, 5.0)]
    add(run, (1, 1.0), tag="b")
    assert curve(run, "b") == [(1, 1.0)]


def test_dropped_values_can_be_written_anew(run: Path) -> None:
    add(run, (1, 1.0), (2, 2.0))
    add(run, (1, 7.0), tag="b")
    file = open_file(run)
    file.drop(lambda tag: tag == "a")
    assert not file.has("a", 1)
    add(run, (1, 1.5), file=file)
    assert {tag: curve(run, tag) for tag in scalars(run)} == {"a": [(1, 1.5)], "b": [(1, 7.0)]}


def test_marks_are_kept_and_not_shown(run: Path) -> None:
    file = open_file(run)
    file.mark("fold0", "key of fold 0")
    add(run, (5, 1.0), file=file)
    assert open_file(run).marked("fold0") == "key of fold 0"
    assert open_file(run).marked("fold1") is None
    add(run, (1, 1.0))
    assert open_file(run).marked("fold0") == "key of fold 0", "also in a file written again"
    assert set(scalars(run)) == {"a"}


def test_a_running_tensorboard_follows_a_file_that_is_written_again(run: Path) -> None:
    add(run, (1, 1.0), (5, 5.0))
    shown = EventAccumulator(str(run))
    shown.Reload()
    add(run, (3, 3.0))
    shown.Reload()
    add(run, (6, 6.0))
    shown.Reload()
    assert [event.step for event in shown.Tensors("a")] == [1, 3, 5, 6]


def test_after_an_error_nothing_is_lost_or_doubled(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(run, (1, 1.0))
    file = open_file(run)
    framed, n_bytes = event_file.framed, [30]

    def partly(events: object) -> bytes:
        # A part of the records arrives before the disk is full.
        path = only_file(run)
        path.write_bytes(path.read_bytes() + framed(events)[: n_bytes[0]])  # type: ignore[arg-type]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(event_file, "framed", partly)
    for step in (2, 3):
        with pytest.raises(OSError, match="No space"):
            add(run, (step, float(step)), file=file)
    monkeypatch.setattr(event_file, "framed", framed)
    add(run, (4, 4.0), file=file)
    assert curve(run, "a") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]


def test_removed_study_is_not_made_again(tmp_path: Path) -> None:
    study = tmp_path / "study"
    file = EventFile(study / "board" / "0000", study)
    file.add_scalars(1.0, 1, {"a": 1.0})
    with refusal(StorageError, "must stay", got="removed", where="study", fix="Put it back"):
        file.flush()
    assert not study.exists()
