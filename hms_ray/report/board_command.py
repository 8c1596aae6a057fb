"""``hms-ray board``: which runs of a study or ladder TensorBoard shows, and their images."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hms_ray.display.tensorboard import fold_run_tag, objective_tag
from hms_ray.errors import HmsRayError, StudyError, one_line
from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.ladder.board import OBJECTIVE
from hms_ray.report.board import (
    MAX_RUNS,
    first_runs,
    nothing_to_show,
    page,
    run_names,
    shown_folder,
    tensorboard_app,
)
from hms_ray.report.fold_runs import export_folds
from hms_ray.report.loopback import serve
from hms_ray.report.trial_images import FILE_NAME, write_trial_images
from hms_ray.storage.folder_names import BOARD, places
from hms_ray.storage.locks import running_since
from hms_ray.study.board import StudyBoard, run_name
from hms_ray.study.folder import StudyFolder, study_names
from hms_ray.study.trial import StoredTrial
from hms_ray.text import closest, counted


@dataclass(frozen=True, kw_only=True)
class BoardOptions:
    """Options of ``hms-ray board``.

    Attributes:
        results: folder of all studies and the fold store.
        trials: numbers of the trials to show; default: all.
        best: number of best trials to show; default: all.
        images: trials whose images are made, besides the best one.
        pack_dir: folder of packs; default: that of the study.
        folds: show one run per fold, from a temporary folder that does not grow.
        port: of this machine; default: a free one.
    """

    results: Path = Path("results")
    trials: tuple[int, ...] = ()
    best: int | None = None
    images: tuple[int, ...] = ()
    pack_dir: Path | None = None
    folds: bool = False
    port: int | None = None


def serve_board(target: str, options: BoardOptions) -> None:
    """Serves TensorBoard of a study or ladder until Ctrl-C.

    Args:
        target: name or path of its folder.
        options: see ``BoardOptions``.

    Raises:
        StudyError: if there is no such folder, nothing in it was evaluated yet, or a
            requested trial does not exist.
        ResourceError: if the port cannot be used.
    """
    folder = StudyFolder.find(target, options.results)
    if folder is None:
        path = _ladder(target, options)
        names = first_runs(path / BOARD, [])
        _serve(path, names, [], objective_tag(OBJECTIVE), "step", options.port)
        return
    if options.folds:
        _serve_folds(folder, options)
        return
    _complete_runs(folder, options.results)
    finished = folder.finished_trials()
    best_first = [run_name(trial.number) for trial in finished]
    names = first_runs(folder.path / BOARD, best_first, _requested(folder, finished, options))
    _make_images(folder, finished, options)
    tag = objective_tag(folder.objective)
    _serve(folder.path, names, best_first, tag, "trial", options.port)


def _requested(
    folder: StudyFolder, finished: list[StoredTrial], options: BoardOptions
) -> list[str]:
    """Runs of the requested trials; an empty list means all."""
    if options.best is None:
        return [run_name(number) for number in options.trials]
    folder.require_finished()
    return [run_name(trial.number) for trial in finished[: options.best]]


def _serve(
    path: Path, names: list[str], best_first: list[str], tag: str, noun: str, port: int | None
) -> None:
    title, n_runs = path.resolve().name, len(run_names(path / BOARD))
    declaring = next((name for name in best_first if name in names), None)
    with ExitStack() as stack:
        shown = stack.enter_context(shown_folder(path / BOARD, names, declaring))
        app = stack.enter_context(tensorboard_app(shown, len(names), f"{title} - TensorBoard"))
        print(f"TensorBoard of {title}: {_of_all(len(names), n_runs, noun)}")
        serve(app, port=port, path=page(tag))


def _serve_folds(folder: StudyFolder, options: BoardOptions) -> None:
    """Serves the curves of single folds; folds of a trial have one colour."""
    trials, finished = folder.trials(), folder.finished_trials()
    known = list(dict.fromkeys(trial.number for trial in (*finished, *trials)))
    requested = [int(name) for name in _requested(folder, finished, options)]
    for number in requested:
        if number not in known:
            folder.finished_trial(number)
    shown = (requested or known)[: MAX_RUNS // int(folder.rows()["fold"].nunique())]
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hms-ray-folds-")))
        n_runs = export_folds(folder, options.results, place, shown)
        if not n_runs:
            raise nothing_to_show(folder.path)
        app = stack.enter_context(tensorboard_app(place, n_runs, f"{folder.name} - folds"))
        text = _of_all(len(shown), len(trials), "trial")
        print(f"TensorBoard of {folder.name}: {counted(n_runs, 'fold')} of {text}")
        tag = fold_run_tag(SCORE_NAMES[folder.objective], folder.objective)
        serve(app, port=options.port, path=page(tag, colours=r"regex:^(\d+)/"))


def _of_all(n_shown: int, n_all: int, noun: str) -> str:
    """Such as ``8 trials`` or ``2 of 8 trials``."""
    text = counted(n_all, noun)
    return text if n_shown == n_all else f"{n_shown:,} of {text}"


def _ladder(target: str, options: BoardOptions) -> Path:
    """The folder of a ladder or a local experiment with runs.

    Raises:
        StudyError: if there is none, or an option is for studies.
    """
    for path in places(target, options.results):
        if (path / BOARD).is_dir():
            break
    else:
        raise StudyError(
            "the study or ladder must exist",
            got=f"{target}{closest(Path(target).name, study_names(options.results))}",
            where=options.results,
            fix="List them with: hms-ray studies",
        )
    given = {
        "--trials": options.trials,
        "--best": options.best,
        "--images": options.images,
        "--folds": options.folds,
    }
    for name, value in given.items():
        if value:
            raise StudyError(f"{name} needs a study", got="a ladder", where=path, fix="Omit it.")
    return path


def _complete_runs(folder: StudyFolder, results: Path) -> None:
    """Writes what is missing of the runs of ended trials, unless a command runs the study."""
    if running_since(folder.path) is not None:
        return
    trials = folder.trials()
    known = set(run_names(folder.path / BOARD))
    if missing := [trial for trial in trials if run_name(trial.number) not in known]:
        print(f"writing TensorBoard's files of {counted(len(missing), 'trial')}", flush=True)
    with StudyBoard(folder, results) as runs:
        runs.catch_up(trials)


def _make_images(folder: StudyFolder, finished: list[StoredTrial], options: BoardOptions) -> None:
    """Makes the images of the best trial, if it has none, and of the requested trials."""
    chosen = [folder.finished_trial(number) for number in options.images]
    if finished and not (folder.path / BOARD / run_name(finished[0].number) / FILE_NAME).is_file():
        chosen.insert(0, finished[0])
    for trial in {trial.number: trial for trial in chosen}.values():
        name = run_name(trial.number)
        run = folder.path / BOARD / name
        try:
            notes = write_trial_images(folder, trial, run, options.results, options.pack_dir)
        except HmsRayError as error:
            notes = [f"no images: {one_line(error)}"]
        for note in notes:
            print(f"trial {name}: {note}")
