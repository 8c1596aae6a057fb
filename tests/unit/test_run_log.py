"""Log files of runs and workers."""

import errno
import logging
import os
import re
from pathlib import Path

import pytest

from hms_ray.storage.run_log import FaultLog, WorkerLogs, log_fields, run_log

logger = logging.getLogger("hms_ray.train.stage_loop")
RECORD = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR) [\w.]+: .*")


def texts(file: Path) -> list[str]:
    return [line.split(": ", 1)[1] for line in file.read_text().splitlines() if ": " in line]


def test_two_runs_of_one_process_log_each_line_once(tmp_path: Path) -> None:
    for name in ("first", "second", "second"):
        with run_log(tmp_path / name / "log.txt"):
            logger.info("trained %d folds", 3)
    logger.info("between runs")
    assert texts(tmp_path / "first" / "log.txt")[1:] == ["trained 3 folds", "end"]
    second = tmp_path / "second" / "log.txt"
    assert texts(second).count("trained 3 folds") == 2  # a resumed run is appended
    assert all(RECORD.fullmatch(line) for line in second.read_text().splitlines())
    package = logging.getLogger("hms_ray")
    assert (package.handlers, package.level) == ([], logging.NOTSET)


def test_error_that_ends_a_run_is_logged_with_its_traceback(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"

    def fail() -> None:
        logger.info("before")
        assert "before" in file.read_text(), "each record must be on disk at once"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), run_log(file):
        fail()
    text = file.read_text()
    assert "ended by an error\nTraceback" in text
    assert "ZeroDivisionError" in text


def test_level_decides_what_is_logged(tmp_path: Path) -> None:
    with run_log(tmp_path / "log.txt", "WARNING"):
        logger.info("quiet")
        logger.warning("loud")
    assert texts(tmp_path / "log.txt") == ["loud"]


def test_records_of_a_worker_carry_trial_fold_and_rank(tmp_path: Path) -> None:
    logs = WorkerLogs(tmp_path, fields={"trial": "0003"})
    with logs.opened(), log_fields(fold=2, rank=1):
        logger.info("stage good epoch 1: KL all 0.9000")
    logger.info("after the end")
    (file,) = (tmp_path / "logs").iterdir()
    assert file.name.endswith(f"-{os.getpid()}.txt")
    assert texts(file) == ["[trial 0003 fold 2 rank 1] stage good epoch 1: KL all 0.9000"]


def test_worker_without_a_log_works_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "logs").touch()
    done = []
    with WorkerLogs(tmp_path).opened():
        done.append("fold")
    assert done == ["fold"]
    assert f"{tmp_path / 'logs'}" in caplog.text


def test_log_on_a_full_disk_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(logging.FileHandler, "close", full)
    done = []
    with run_log(tmp_path / "log.txt"):
        done.append("trial")
    assert done == ["trial"]


def test_faults_of_reporting_end_nothing_and_are_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults = FaultLog(logging.getLogger("hms_ray.faults"))
    for reason in ("disk full", "disk full", "no such folder"):
        with faults("curves were not written"):
            raise OSError(reason)
    assert [record.message.partition(": ")[0] for record in caplog.records] == 2 * [
        "curves were not written"
    ]
    assert ["disk full" in record.message for record in caplog.records] == [True, False]
    with pytest.raises(KeyboardInterrupt), faults("not a fault"):
        raise KeyboardInterrupt
