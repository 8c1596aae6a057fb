"""Commands that show results: studies, show, leaderboard, report, replay."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hms_ray.cli.next_command import print_next
from hms_ray.cli.options import RESULTS, Json, Results, option
from hms_ray.errors import StudyError


def studies(results: Results = RESULTS, as_json: Json = False) -> None:
    """List the studies and ladders of a results folder, last written first."""
    from hms_ray.display.folder_list import render_folders
    from hms_ray.ladder.folder import summarise_ladders
    from hms_ray.study.overview import summarise_studies

    found = [*summarise_studies(results), *summarise_ladders(results)]
    found.sort(key=lambda folder: folder.written, reverse=True)
    if as_json:
        print(json.dumps([asdict(folder) for folder in found], indent=1))
        return
    print(render_folders(found, results))
    names = [folder.name for folder in found if folder.kind == "study"]
    if names:
        print_next("show", names[0], results=results)


def show(
    target: Annotated[
        str, typer.Argument(metavar="STUDY[/TRIAL]", help="Study, or one trial of it.")
    ],
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """Show a study, or one trial: scores, folds, cost, and the reason if it failed."""
    from hms_ray.display.overview import render_study, render_trial
    from hms_ray.display.tables import to_text
    from hms_ray.ladder.folder import ladder_names
    from hms_ray.study.confirmation import confirmation_table, confirmed_trials
    from hms_ray.study.overview import find_trial, study_overview, trial_overview

    if target in ladder_names(results):
        raise StudyError(
            "show needs a study or a trial",
            got=f"a ladder, {target}",
            fix=f"Read {results / target / 'README.md'}.",
        )
    folder, number = find_trial(target, results)
    if number is None:
        study, confirmed = study_overview(folder), confirmed_trials(folder)
        if as_json:
            content = {**asdict(study), "confirmed": [asdict(trial) for trial in confirmed]}
            print(json.dumps(content, indent=1))
        else:
            table = confirmation_table(confirmed, folder.objective)
            print(render_study(study))
            print("" if table is None else f"\n{to_text(table)}\n", end="")
        if study.summary.finished and not as_json:
            print_next("leaderboard", target, results=results)
    else:
        trial = trial_overview(folder, number)
        again = [one for one in confirmed_trials(folder) if one.number == number]
        if as_json:
            content = {**asdict(trial), "confirmed": [asdict(one) for one in again]}
            print(json.dumps(content, indent=1))
        else:
            print(render_trial(trial))
            print("".join(f"\n{one.text(folder.objective)}\n" for one in again), end="")
        if trial.state == "complete" and not as_json:
            print_next("submit", target, "--data", "DIR", results=results)


def leaderboard(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Study, or path of its folder.")],
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """Print a study's trials, best first, and the reason of each failure."""
    from hms_ray.study.folder import StudyFolder
    from hms_ray.study.leaderboard import Leaderboard

    board = Leaderboard(StudyFolder.open(study, results))
    print(board.json() if as_json else board.text())
    if board.finished and not as_json:
        print_next("blend", study, results=results)


def report(
    target: Annotated[
        str, typer.Argument(metavar="STUDY|LADDER", help="Study or ladder, or path of its folder.")
    ],
    out: Annotated[
        Path | None, option("File to write.", "FILE", default="report.html in its folder")
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Write everything worth knowing about a study or ladder into one HTML file.

    It works offline and can be mailed. Needs Plotly, the extra "report".
    """
    from hms_ray.report.write import write_report
    from hms_ray.storage.folder_names import BLEND, BLEND_FILE
    from hms_ray.study.folder import StudyFolder

    file = write_report(target, results, out)
    print(f"report: {file} ({file.stat().st_size / 1e6:.1f} MB)")
    study = StudyFolder.find(target, results)
    if study is not None and (study.path / BLEND / BLEND_FILE).is_file():
        print_next("submit", f"{target}/{BLEND}", "--data", "DIR", results=results)
    else:
        print_next("blend", target, results=results)


def replay(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Study, or path of its folder.")],
    orders: Annotated[
        int, typer.Option("--orders", metavar="N", min=1, help="Random orders of the trials.")
    ] = 20,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Seed of the orders.")
    ] = 0,
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """Show what each pruning rule would have saved and lost in a study."""
    from hms_ray.display.replay_table import render_replay
    from hms_ray.evaluate.metric import SCORE_NAMES
    from hms_ray.search.replay import replay_study
    from hms_ray.study.folder import StudyFolder

    folder = StudyFolder.open(study, results)
    found = [vars(one) for one in replay_study(folder, orders, seed)]
    if as_json:
        plain = [
            {
                name: getattr(value, "tolist", lambda value=value: value)()
                for name, value in one.items()
            }
            for one in found
        ]
        print(json.dumps(plain, indent=1))
        return
    n_trials = len(folder.finished_trials())
    print(render_replay(found, SCORE_NAMES[folder.objective], n_trials))
    print_next("leaderboard", study, results=results)
