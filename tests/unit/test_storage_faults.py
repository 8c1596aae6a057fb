"""Full, read-only, failing and removed storage: what ends a run, and what is left of it."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from hms_ray.dataset.prepare import Prepared
from hms_ray.errors import HmsRayError, LockedError, StorageError
from hms_ray.experiment.run import ExperimentResult
from hms_ray.search.proposals import Proposals
from hms_ray.storage import faults as storage_faults
from hms_ray.storage import lease
from hms_ray.storage.faults import check_storage, storage_error
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.resume_folder import ResumeFolder
from hms_ray.storage.run_log import FaultLog, WorkerLogs, run_log
from hms_ray.study.folder import StudyFolder
from hms_ray.study.new import create_study, open_study
from hms_ray.study.run_outcome import errors_recorded, read_outcome
from hms_ray.sweep import stop_watch
from hms_ray.sweep import trial_actor as sweep_trial
from hms_ray.sweep.run_faults import RunFaults
from hms_ray.sweep.stop_watch import StopWatch
from hms_ray.sweep.trial_actor import StudyJob, run_trial
from hms_ray.sweep.trial_ends import TrialEnds
from hms_ray.sweep.tune_searcher import StudySearch
from tests.refused import refusal
from tests.study_data import make_result, make_space
from tests.unit.test_proposals import recorded_trials

KEY = "ab" + "0" * 62
OOF = pd.DataFrame({"row_id": ["1-0"], "seizure_vote": [1.0]})
FULL = "the disk must have free space"
SPACE = make_space()


def failing(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def write(store: FoldStore, save_weights: Callable[[Path], object]) -> None:
    store.write(KEY, OOF, {"seconds": 1.0, "saved_s": 0.0}, save_weights)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("number", "rule", "fix"),
    [
        (errno.ENOSPC, FULL, "Free space"),
        (errno.EDQUOT, FULL, "Free space"),
        (errno.EROFS, "the folder must be writable", "Make it writable"),
        (errno.EACCES, "the folder must be writable", "Make it writable"),
        (errno.EIO, "the disk must work", "Check it"),
        (errno.ESTALE, "the disk must work", "Check it"),
    ],
)
def test_a_fold_that_cannot_be_stored_names_fault_place_and_remedy_and_leaves_nothing(
    number: int, rule: str, fix: str, tmp_path: Path
) -> None:
    store = FoldStore(tmp_path)
    with refusal(StorageError, rule, got=os.strerror(number), where=str(tmp_path), fix=fix):
        write(store, failing(number))
    assert files(tmp_path) == []
    write(store, Path.touch)
    assert store.has(KEY)


def test_other_errors_of_a_write_are_no_faults_of_storage(tmp_path: Path) -> None:
    for error in (failing(errno.ENOENT), failing(errno.EMFILE)):
        with pytest.raises(OSError, match="Errno"):
            write(FoldStore(tmp_path), error)


def test_the_fault_behind_another_librarys_error_is_found(tmp_path: Path) -> None:
    try:
        try:
            failing(errno.ENOSPC)()
        finally:
            # As torch does when it closes a file that it could not write.
            raise RuntimeError("unexpected pos 64 vs 0")
    except RuntimeError as error:
        found = storage_error(error, tmp_path)
    assert found is not None
    assert found.rule == FULL


def test_removed_results_are_not_made_again_for_a_part(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for call in (
        lambda: write(FoldStore(results), Path.touch),
        lambda: ResumeFolder(results, KEY).take(),
        lambda: check_storage(results),
    ):
        with refusal(StorageError, "must stay", got="removed", where=str(results), fix="Put it"):
            call()
    with WorkerLogs(results / "one").opened():
        logging.getLogger("hms_ray.test").warning("a record")
    assert not results.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("this process may not mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_really_fills_up_keeps_what_is_stored(small_disk: Path) -> None:
    import torch

    from hms_ray.train.checkpoint import save_weights

    store = FoldStore(small_disk)
    write(store, Path.touch)
    before = files(small_disk)
    weights = {"layer": torch.zeros(2**20)}
    with refusal(StorageError, FULL, got="No space left on device", where=str(small_disk)):
        store.write(
            "cd" + KEY[2:],
            OOF,
            {"seconds": 1.0, "saved_s": 0.0},
            lambda path: save_weights(path, weights),
        )
    assert set(files(small_disk)) == set(before)
    assert store.read(KEY).record["seconds"] == 1.0
    check_storage(small_disk)
    with (small_disk / "full").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    with refusal(StorageError, FULL, where=str(small_disk), fix="Free space"):
        check_storage(small_disk)
    assert set(files(small_disk)) == {*before, small_disk / "full"}


def test_reporting_goes_on_only_while_the_folder_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    faults = FaultLog(logging.getLogger("hms_ray.faults"), tmp_path)
    full = failing(errno.ENOSPC)
    for _ in range(2):
        with faults("curves were not written"):
            full()
    assert len(caplog.records) == 1
    with faults("curves were not written"):
        raise ValueError("no fault of storage")
    monkeypatch.setattr(storage_faults.os, "fsync", full)
    with refusal(StorageError, FULL, where=str(tmp_path)), faults("curves were not written"):
        full()
    assert files(tmp_path) == []


def test_a_log_on_a_full_disk_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    with run_log(Path("/dev/full")):
        logging.getLogger("hms_ray.test").warning("a record")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the log /dev/full is incomplete: OSError: [Errno 28]")


@pytest.fixture
def study(tmp_path: Path, prepared: Prepared) -> StudyFolder:
    return create_study(tmp_path / "results", "one", SPACE, prepared)


def test_a_trial_that_meets_a_storage_fault_has_not_failed(
    study: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object) -> ExperimentResult:
        write(FoldStore(study.path.parent), failing(errno.EROFS))
        return make_result(0.5)

    monkeypatch.setattr(sweep_trial, "_train", train)
    job = StudyJob(study.path, *[None] * 6, logs=WorkerLogs(study.path))  # type: ignore[arg-type]
    search = StudySearch(Proposals(SPACE, study.journal), 9)
    config = search.suggest("a")
    assert isinstance(config, dict)
    assert isinstance(search.suggest("b"), dict)
    search.on_trial_complete("a", run_trial(config, job))
    assert study.trials() == []
    with refusal(StorageError, "must be writable", where=str(study.path.parent)):
        search.faults.on_step_end(0, [])
    # Tune ends the other trials then.
    search.on_trial_complete("b")
    assert search.suggest("c") == StudySearch.FINISHED
    states = [trial.state for trial in recorded_trials(study.journal)]
    assert states == [TrialState.RUNNING] * 2
    assert Proposals(SPACE, study.journal).n_interrupted == 2


@pytest.mark.parametrize("moment", ["draw", "result"])
def test_a_journal_that_cannot_be_written_ends_the_run_and_keeps_the_trial_open(
    moment: str, study: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(*_: object) -> None:
        with study.journal.open("ab") as file:
            file.write(b'{"op_code":')
        failing(errno.ENOSPC)()

    search = StudySearch(Proposals(SPACE, study.journal), 9)
    search.suggest("a")
    before = study.journal.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(JournalFileBackend, "append_logs", torn)
        if moment == "draw":
            assert search.suggest("b") == StudySearch.FINISHED
        else:
            search.on_trial_complete("a", dict(make_result(0.5).scores))
    with refusal(StorageError, FULL, where=str(study.path)):
        search.faults.check()
    assert Proposals(SPACE, study.journal).n_interrupted == 1
    # The torn record is cut off; the next one follows.
    assert study.journal.read_bytes().startswith(before + b'{"op_code":0,')
    assert not study.journal.with_name("optuna.journal.lock").is_symlink()


def test_an_end_whose_files_cannot_be_written_ends_the_run(
    study: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = TrialEnds(study, lambda event: None)
    faults = RunFaults()
    search = StudySearch(Proposals(SPACE, study.journal), 9, on_end=ends.record, faults=faults)
    search.suggest("a")
    monkeypatch.setattr(storage_faults.os, "fsync", failing(errno.ENOSPC))
    search.on_trial_complete("a", {"error": "no luck"})
    with refusal(StorageError, FULL, where=str(study.path)):
        faults.check()
    assert study.trials() == []


def test_the_first_fault_is_the_one_reported() -> None:
    faults = RunFaults()
    faults.add(StorageError("the first"))
    faults.add(KeyError("what follows from it"))
    with refusal(StorageError, "the first"):
        faults.check()


def test_a_study_whose_folder_is_removed_ends(
    study: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop_watch, "POLL_S", 0.01)
    faults = RunFaults()
    with StopWatch(study.path, lambda number: None, on_fault=faults.add) as watch:
        shutil.rmtree(study.path.parent)
        watch._thread.join(0.5)
    with refusal(StorageError, "must stay", where=str(study.path)):
        faults.check()
    assert not study.path.parent.exists()


def test_a_study_that_another_command_takes_over_ends(
    tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWAL_S", 0.05)
    faults = RunFaults()
    results = tmp_path / "results"
    with open_study(results, "one", SPACE, prepared, on_lost=faults.add) as study:
        (study.path / lease.LEASE_FILE).unlink()
        until = time.monotonic() + 5
        while faults.first is None and time.monotonic() < until:
            time.sleep(0.02)
        with refusal(LockedError, "one command at a time", where=str(study.path)):
            faults.on_step_end(0, [])
        with pytest.raises(LockedError), errors_recorded(study.path):
            faults.check()
    assert read_outcome(study.path) is None, "it is the other command's study now"


def test_a_full_disk_ends_any_command_with_one_line(
    error_line: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "pack"))

    monkeypatch.setattr("hms_ray.dataset.pack_command.pack_folder", full)
    line = error_line("pack", tmp_path)
    assert f"{FULL}, got No space left on device, in {tmp_path / 'pack'}. Free space" in line


def test_storage_faults_travel_between_processes(tmp_path: Path) -> None:
    import pickle

    found = storage_error(OSError(errno.ENOSPC, "full"), tmp_path)
    again = pickle.loads(pickle.dumps(found))
    assert isinstance(again, StorageError)
    assert isinstance(again, HmsRayError)
    assert str(again) == str(found)
