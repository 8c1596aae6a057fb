"""``hms-ray board`` without a browser: which runs TensorBoard gets, and what it answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from werkzeug.test import Client

from hms_ray.cli.main import main
from hms_ray.display.hparams import has_session, session_name
from hms_ray.display.tensorboard import RunEnd, RunLog
from hms_ray.errors import ResourceError, StudyError
from hms_ray.report import board, board_command
from hms_ray.report.board import MAX_RUNS, first_runs, page, run_names
from hms_ray.report.trial_images import FILE_NAME
from hms_ray.study.folder import StudyFolder
from tests.blend_data import make_study
from tests.large_study import write_large_study
from tests.refused import refusal
from tests.tensorboard_reading import scalars

N_TRIALS = 6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A study of six trials without TensorBoard files; only copied."""
    place = tmp_path_factory.mktemp("board")
    return write_large_study(place / "results", "many", n_trials=N_TRIALS, n_folds=2, n_rows=120)


@pytest.fixture
def results(made: StudyFolder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.path.parent, tmp_path / "results"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the trials whose images are made: empty files here."""
    drawn: list[int] = []

    def write(folder: StudyFolder, trial: Any, run: Path, *options: object) -> list[str]:
        drawn.append(trial.number)
        run.mkdir(parents=True, exist_ok=True)
        (run / FILE_NAME).write_bytes(b"")
        return ["no pack"]

    monkeypatch.setattr(board_command, "write_trial_images", write)
    return drawn


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, undrawn: list[int]) -> Callable[..., SimpleNamespace]:
    """Runs a command line of ``board``; what it would serve."""

    def call(*words: object) -> SimpleNamespace:
        found = SimpleNamespace(drawn=undrawn)

        def serve(app: Any, *, port: int | None, path: str) -> None:
            client = Client(app)
            found.port, found.path = port, path
            found.runs = client.get("/data/runs").get_json()
            found.tags = client.get("/data/plugin/timeseries/tags").get_json()
            request = {"allowedStatuses": ["STATUS_SUCCESS", "STATUS_FAILURE"], "sliceSize": 100}
            answer = client.post(
                "/data/plugin/hparams/session_groups", data=json.dumps(request)
            ).get_json()
            found.groups = [group["name"] for group in answer.get("sessionGroups", [])]
            found.columns = client.post(
                "/data/plugin/hparams/experiment", data=json.dumps({"experimentName": ""})
            ).get_json()

        monkeypatch.setattr(board_command, "serve", serve)
        assert main(["board", *map(str, words)]) == 0
        return found

    return call


def test_a_study_opens_with_its_objective_pinned_and_its_best_trials_first(
    results: Path, served: Callable[..., SimpleNamespace], capsys: pytest.CaptureFixture[str]
) -> None:
    found = served("many", "--results", results, "--port", "6007")
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "writing TensorBoard's files of 6 trials"
    assert printed.splitlines()[-1] == "TensorBoard of many: 6 trials"
    assert found.port == 6007
    # Written here: the study was not.
    assert found.runs == [f"{number:04d}" for number in range(N_TRIALS)]
    parts = urlsplit(found.path)
    query = parse_qs(parts.query)
    (pin,) = json.loads(query["pinnedCards"][0])
    assert pin["plugin"] == "scalars"
    assert pin["tag"].startswith("1 objective")
    assert pin["tag"].endswith("/KL >=10")
    assert pin["tag"] in found.tags["scalars"]["tagDescriptions"] or any(
        pin["tag"] in tags for tags in found.tags["scalars"]["runTagInfo"].values()
    )
    assert (query["runColorGroup"], query["smoothing"]) == (["run"], ["0"])
    assert parts.fragment == "timeseries"
    best = StudyFolder.open("many", results).finished_trials()
    names = [
        session_name("many", trial.number, trial.state, trial.scores["kl_10"]) for trial in best
    ]
    assert found.groups == names
    order = [trial.number for trial in best]
    assert found.drawn == [order[0]]
    assert f"trial {order[0]:04d}: no pack" in printed


def test_some_trials_are_shown_with_the_columns_of_all(
    results: Path, served: Callable[..., SimpleNamespace], capsys: pytest.CaptureFixture[str]
) -> None:
    order = [trial.number for trial in StudyFolder.open("many", results).finished_trials()]
    best = served("many", "--results", results, "--best", 2)
    assert best.runs == sorted(f"{number:04d}" for number in order[:2])
    assert capsys.readouterr().out.splitlines()[-1] == "TensorBoard of many: 2 of 6 trials"
    assert len(best.groups) == 2
    columns = [column["displayName"] for column in best.columns["metricInfos"]]
    assert columns[0] == "KL >=10"
    searched = {column["name"] for column in best.columns["hparamInfos"] if column["differs"]}
    assert "training.learning_rate" in searched


def test_trials_are_asked_for_by_number(
    results: Path, undrawn: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[list[str]] = []
    monkeypatch.setattr(board_command, "_serve", lambda path, names, *rest: shown.append(names))
    words = ["board", "many", "--results", str(results)]
    assert main([*words, "--trials", "4, 1,1", "--images", "1"]) == 0
    order = [trial.number for trial in StudyFolder.open("many", results).finished_trials()]
    assert (shown, undrawn) == ([["0001", "0004"]], [order[0], 1])
    # The best trial has its images by now.
    assert main([*words, "--best", "1"]) == 0
    assert (shown[1], undrawn) == ([f"{order[0]:04d}"], [order[0], 1])


def test_a_folder_of_links_grows_with_its_runs(results: Path, tmp_path: Path) -> None:
    runs = tmp_path / "board"
    for name in ("0000", "0001", "0002"):
        (runs / name).mkdir(parents=True)
        (runs / name / "events.out.tfevents.1.a").write_bytes(b"")
    with board.shown_folder(runs, ["0000", "0002"]) as shown:
        (runs / "0002" / "events.out.tfevents.2.a").write_bytes(b"")
        assert sorted(path.name for path in shown.iterdir()) == ["0000", "0002"]
        assert (shown / "0002" / "events.out.tfevents.2.a").is_file()
    assert not shown.exists()
    assert len(run_names(runs)) == 3
    with board.shown_folder(runs, ["0002", "0001", "0000"]) as shown:
        assert shown == runs


def test_of_too_many_runs_the_best_are_shown(tmp_path: Path) -> None:
    for number in range(MAX_RUNS + 3):
        (tmp_path / f"{number:04d}").mkdir()
        (tmp_path / f"{number:04d}" / "events.out.tfevents.1.a").write_bytes(b"")
    names = run_names(tmp_path)
    assert first_runs(tmp_path, ["0501", "0500", "gone"]) == [*names[: MAX_RUNS - 2], *names[-2:]]
    shutil.rmtree(tmp_path / "0300")
    shutil.rmtree(tmp_path / "0301")
    shutil.rmtree(tmp_path / "0302")
    assert len(first_runs(tmp_path, ["0501"])) == MAX_RUNS
    assert first_runs(tmp_path, [], ["0501"]) == ["0501"]


def test_a_ladder_is_shown_step_by_step(
    results: Path, served: Callable[..., SimpleNamespace], capsys: pytest.CaptureFixture[str]
) -> None:
    run = results / "ladder" / "board" / "2_panels"
    log = RunLog(run, results, "kl_all", 1, lambda key: {})
    log.end(RunEnd(minutes=1.0))
    log.file.flush()
    found = served("ladder", "--results", results)
    assert found.runs == ["2_panels"]
    assert "KL%20all" in found.path
    assert capsys.readouterr().out.splitlines()[-1] == "TensorBoard of ladder: 1 step"
    options: list[dict[str, Any]] = [
        {"trials": (1,)},
        {"best": 1},
        {"images": (1,)},
        {"folds": True},
    ]
    for option in options:
        with refusal(StudyError, "needs a study", got="a ladder", where="ladder", fix="Omit"):
            board_command.serve_board(
                "ladder", board_command.BoardOptions(results=results, **option)
            )


def test_the_end_of_a_torn_file_is_written_again(
    results: Path, undrawn: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_command, "_serve", lambda *options: None)
    call = ["board", "many", "--results", str(results)]
    assert main(call) == 0
    run = results / "many" / "board" / "0001"
    (file,) = run.glob("*.hms_ray")
    whole = scalars(run)
    file.write_bytes(file.read_bytes()[:-7])
    assert main(call) == 0
    assert scalars(run) == whole
    assert has_session(run)


def test_folds_are_runs_of_their_own_with_a_colour_per_trial(
    results: Path, served: Callable[..., SimpleNamespace], capsys: pytest.CaptureFixture[str]
) -> None:
    found = served("many", "--results", results, "--folds", "--trials", "1,4")
    assert found.runs == ["0001/fold_0", "0001/fold_1", "0004/fold_0", "0004/fold_1"]
    assert (
        capsys.readouterr().out.splitlines()[-1] == "TensorBoard of many: 4 folds of 2 of 6 trials"
    )
    query = parse_qs(urlsplit(found.path).query)
    assert query["runColorGroup"] == ["regex:^(\\d+)/"]
    (pin,) = json.loads(query["pinnedCards"][0])
    assert all(pin["tag"] in tags for tags in found.tags["scalars"]["runTagInfo"].values())
    # Neither runs nor images are written into the study.
    assert found.drawn == []
    assert not (results / "many" / "board").exists()


def test_of_too_many_folds_those_of_the_best_trials_are_shown(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []

    def export(folder: StudyFolder, place: Path, out: Path, trials: list[int]) -> int:
        shown.append(trials)
        return 0

    monkeypatch.setattr(board_command, "export_folds", export)
    monkeypatch.setattr(board_command, "MAX_RUNS", 7)
    with refusal(StudyError, "that was evaluated", got="none", where=str(results / "many")):
        board_command.serve_board("many", board_command.BoardOptions(results=results, folds=True))
    order = [trial.number for trial in StudyFolder.open("many", results).finished_trials()]
    assert shown == [order[:3]]


def test_a_study_that_runs_is_not_written_to(
    results: Path, undrawn: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_command, "running_since", lambda path: datetime.now(UTC))
    monkeypatch.setattr(board_command, "_serve", lambda *options: None)
    with refusal(StudyError, "trial or step that was evaluated", got="none"):
        board_command.serve_board("many", board_command.BoardOptions(results=results))
    assert not (results / "many" / "board").exists()


def test_what_cannot_be_shown_is_refused(results: Path, tmp_path: Path) -> None:
    def call(target: str, **options: Any) -> None:
        board_command.serve_board(target, board_command.BoardOptions(results=results, **options))

    with refusal(
        StudyError,
        "the study or ladder must exist",
        got="mani (did you mean many?)",
        where=str(results),
        fix="hms-ray studies",
    ):
        call("mani")
    with refusal(
        StudyError, "must have a TensorBoard run", got="0099", where="board", fix="0000, 0001"
    ):
        call("many", trials=(99,))
    for option in ({"images": (99,)}, {"trials": (99,), "folds": True}):
        with refusal(StudyError, "the trial must have finished", got="trial 0099", fix="0"):
            call("many", **option)
    make_study(tmp_path, "new")
    with refusal(StudyError, "trial or step that was evaluated", got="none", fix="Train first"):
        call("new")
    with refusal(StudyError, "the study needs a finished trial", got="none", where="new"):
        call("new", best=3)


def test_a_port_in_use_is_refused(results: Path, undrawn: list[int]) -> None:
    from hms_ray.report.loopback import running

    with running(lambda environ, start: []) as address:
        port = int(address.rpartition(":")[2])
        with refusal(ResourceError, "the port must be free", got=str(port), fix="--port"):
            board_command.serve_board(
                "many", board_command.BoardOptions(results=results, port=port)
            )


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--trials", "1", "--best", "2"], ["by --trials or by --best", "Omit one"]),
        (["--trials", "1;2"], ["must be numbers with commas", "'1;2'", "3,7,12"]),
        (["--folds", "--images", "1"], ["no images", "--folds", "Omit one"]),
        (["--best", "0"], ["--best"]),
        (["--port", "70000"], ["--port"]),
    ],
)
def test_wrong_options_are_refused(
    words: list[str], parts: list[str], error_line: Callable[..., str]
) -> None:
    line = error_line("board", "many", *words)
    assert all(part in line for part in parts), line


def test_tags_of_users_are_quoted_in_the_address() -> None:
    path = page('1 objective/"a"&b#c')
    assert urlsplit(path).fragment == "timeseries"
    pins = json.loads(parse_qs(urlsplit(path).query)["pinnedCards"][0])
    assert pins == [{"plugin": "scalars", "tag": '1 objective/"a"&b#c'}]
