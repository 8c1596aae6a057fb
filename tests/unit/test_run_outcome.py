"""How a run ended, as the study keeps it, and the exit status for schedulers."""

from __future__ import annotations

from pathlib import Path

import pytest

from hms_ray.cli.main import main
from hms_ray.dataset.prepare import Prepared
from hms_ray.distributed import cluster
from hms_ray.errors import (
    ConfigError,
    DataError,
    LockedError,
    ModelError,
    ResourceError,
    StoppedByRequest,
    StorageError,
    StudyError,
    Terminated,
)
from hms_ray.storage.fold_store import StoredFoldError
from hms_ray.study.folder import StudyFolder
from hms_ray.study.new import create_study
from hms_ray.study.run_outcome import (
    EXIT_ZERO,
    FINISHED,
    OUTCOME_FILE,
    RunOutcome,
    errors_recorded,
    is_final,
    read_outcome,
    record_outcome,
)
from tests.study_data import make_space


@pytest.fixture
def study(tmp_path: Path, prepared: Prepared) -> StudyFolder:
    return create_study(tmp_path / "results", "one", make_space(), prepared)


@pytest.mark.parametrize(
    ("kind", "final"),
    [
        *[(ConfigError, True), (DataError, True), (StudyError, True)],
        *[(LockedError, False), (StoredFoldError, False), (StorageError, False)],
        *[(ResourceError, False), (ModelError, False), (OSError, False)],
    ],
)
def test_only_what_stays_as_it_is_is_final(kind: type[Exception], final: bool) -> None:
    assert is_final(kind("a rule")) is final


def end(study: Path, error: BaseException) -> RunOutcome | None:
    def run() -> None:
        with errors_recorded(study):
            assert read_outcome(study) is None
            raise error

    with pytest.raises(type(error)):
        run()
    return read_outcome(study)


def test_errors_and_signals_are_recorded_until_the_next_run(study: StudyFolder) -> None:
    for error, text, final in (
        (StudyError("a rule", got="3"), "a rule, got 3", True),
        (RuntimeError("no luck"), "RuntimeError: no luck", False),
        (KeyboardInterrupt(), "stopped by Ctrl-C", False),
        (Terminated(), "stopped by SIGTERM", False),
        (StoppedByRequest(), "stopped by hms-ray stop", False),
    ):
        found = end(study.path, error)
        assert found is not None
        assert (found.text, found.final) == (text, final)
    with errors_recorded(study.path):
        pass
    assert read_outcome(study.path) is None


def test_a_removed_study_is_not_made_again_for_its_outcome(tmp_path: Path) -> None:
    assert end(tmp_path / "gone", StorageError("the folder must stay")) is None
    assert not (tmp_path / "gone").exists()


def test_show_and_studies_have_the_outcome(
    study: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    record_outcome(study.path, "1 of 3 trials finished, 3 failed", final=True)
    results = str(study.path.parent)
    for words in (["show", "one"], ["studies"]):
        assert main([*words, "--results", results]) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert "1 of 3 trials finished, 3 failed; the same command would end in the" in printed
    record_outcome(study.path, FINISHED, final=True)
    assert main(["show", "one", "--results", results]) == 0
    assert "last run" not in capsys.readouterr().out


@pytest.mark.parametrize("words", [["train"], ["sweep"], ["train", "--local"]])
def test_a_final_error_exits_with_0_on_request(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = [*words, "demo", "--data", str(tmp_path / "none"), "--results", str(tmp_path)]
    assert main(call) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert main([*call, EXIT_ZERO]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [line, f"no restart is needed: exit status 0, by {EXIT_ZERO}"]
    assert main([*call, EXIT_ZERO, "--no-such-option"]) == 0


def test_another_error_keeps_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise ResourceError("a Ray cluster must answer at the address")

    monkeypatch.setattr(cluster, "check_connection", refuse)
    assert main(["sweep", "demo", "--data", str(tmp_path), EXIT_ZERO]) == 2
    assert "restart" not in capsys.readouterr().err


def test_an_error_of_the_data_is_recorded_in_a_study_that_ran_before(
    study: StudyFolder, tmp_path: Path
) -> None:
    words = ["--data", str(tmp_path / "none"), "--results", str(study.path.parent)]
    for name in ("one", "new"):
        assert main(["sweep", "demo", *words, "--study", name]) == 2
    found = read_outcome(study.path)
    assert found is not None
    assert found.final
    assert not (study.path.parent / "new").exists()
    assert (study.path / OUTCOME_FILE).is_file()
