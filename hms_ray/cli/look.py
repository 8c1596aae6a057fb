"""Commands that show results: leaderboard."""

from __future__ import annotations

from typing import Annotated

import typer

from hms_ray.cli.options import LOOK, RESULTS, Debug, Results

app = typer.Typer()


@app.command(rich_help_panel=LOOK)
def leaderboard(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Study, or path of its folder.")],
    results: Results = RESULTS,
    debug: Debug = False,
) -> None:
    """Print the trials of a study, best first."""
    from hms_ray.study.leaderboard import print_leaderboard

    print_leaderboard(study, results)
