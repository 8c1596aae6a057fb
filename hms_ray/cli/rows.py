"""The command rows: a study's rows with their EEGs and the models' shares, in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hms_ray.cli.next_command import print_next
from hms_ray.cli.options import RESULTS, Port, Results, option
from hms_ray.errors import ConfigError
from hms_ray.text import counted

_FILES = "To write files"
_WORST = 5


def rows(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Study, or path of its folder.")],
    data: Annotated[
        Path | None, option("Competition folder.", "DIR", default="that of the study")
    ] = None,
    trial: Annotated[
        int | None, option("Trial whose loss is shown.", "N", default="the best one")
    ] = None,
    row: Annotated[
        list[str] | None,
        option("Row to show first, or to write; can be repeated with --out.", "ID"),
    ] = None,
    port: Port = None,
    out: Annotated[
        Path | None,
        option("Write one HTML file per row into this folder; no server.", "DIR", panel=_FILES),
    ] = None,
    worst: Annotated[
        int | None,
        option("Write the N rows of largest loss.", "N", default=f"{_WORST}", panel=_FILES),
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Page through a study's rows: EEG, spectrograms, votes, every model's shares.

    The page is served to this machine alone, until Ctrl-C. Its rows are sorted
    by loss, class, votes or disagreement of the trials; it lists its keys.
    """
    from hms_ray.competition.read import require_folder
    from hms_ray.report.loopback import serve
    from hms_ray.report.rows_app import RowApp, RowBrowser, row_address
    from hms_ray.report.rows_files import worst_rows, write_row_files
    from hms_ray.study.folder import StudyFolder

    named = row or []
    if out is None and (worst is not None or len(named) > 1):
        raise ConfigError(
            "several rows are written to files",
            got=f"--worst {worst}" if worst is not None else counted(len(named), "row"),
            fix="Name their folder: --out DIR",
        )
    if named and worst is not None:
        raise ConfigError(
            "rows are chosen by --row or by --worst", got="both", fix="Leave one of them out."
        )
    if data is not None:
        require_folder(data)
    browser = RowBrowser(StudyFolder.open(study, results), data, trial)
    for note in browser.notes:
        print(note)
    if out is None:
        for row_id in named:
            browser.table.position(row_id)
        serve(RowApp(browser), port=port, path=row_address(named[0]) if named else "/")
        return
    chosen = named or worst_rows(browser, _WORST if worst is None else worst)
    files = write_row_files(browser, out, chosen)
    size = sum(file.stat().st_size for file in files) / 1e6
    print(f"{counted(len(files), 'row')} written to {out}, {size:.1f} MB")
    print_next("rows", study, results=results)
