"""Writes ``report.html`` of a study or ladder."""

from __future__ import annotations

import logging
from pathlib import Path

from hms_ray.errors import StudyError, one_line
from hms_ray.ladder.folder import find_ladder, ladder_names
from hms_ray.report.figure_style import plotly_missing, require_plotly
from hms_ray.report.page import Page
from hms_ray.storage.folder_names import REPORT_FILE, STEPS_FILE, places
from hms_ray.storage.structured_files import write_text
from hms_ray.study.folder import StudyFolder, study_names
from hms_ray.text import closest, command_line

logger = logging.getLogger(__name__)


def write_report(target: str | Path, results: Path, out: Path | None = None) -> Path:
    """Writes the report of a study or a ladder, with what there is of it.

    Args:
        target: its name below ``results``, or its path.
        results: folder of studies and ladders.
        out: file to write; default: ``report.html`` in its folder.

    Returns:
        The file.

    Raises:
        ConfigError: if Plotly is not installed.
        StudyError: if there is neither a study nor a ladder, or the file that makes its folder
            one is damaged.
    """
    require_plotly()
    study = StudyFolder.find(target, results)
    if study is not None:
        from hms_ray.report.study_data import StudyData
        from hms_ray.report.study_page import study_page

        return _written(study_page(StudyData(study)), out or study.path / REPORT_FILE)
    if any((place / STEPS_FILE).is_file() for place in places(target, results)):
        from hms_ray.report.ladder_frames import LadderData
        from hms_ray.report.ladder_page import ladder_page

        folder = find_ladder(target, results)
        return _written(ladder_page(LadderData(folder)), out or folder / REPORT_FILE)
    names = [*study_names(results), *ladder_names(results)]
    raise StudyError(
        "a report needs a study or a ladder",
        got=f"{target}{closest(Path(target).name, names)}",
        where=results,
        fix="List them with: hms-ray studies" if names else "Run one first: hms-ray sweep",
    )


def _written(page: Page, file: Path) -> Path:
    """Writes a page with Plotly inside, whole or not at all."""
    from plotly.offline import get_plotlyjs

    write_text(file, page.html(get_plotlyjs()))
    return file


def report_line(study: StudyFolder, *, changed: bool = True) -> str:
    """Writes the report at the end of another command; no fault of it ends that command.

    Args:
        study: the study.
        changed: whether the study has changed; otherwise an existing report stays.

    Returns:
        A line that names the file, or the command that writes it.
    """
    file, command = study.path / REPORT_FILE, command_line("report", study.path)
    if plotly_missing():
        return f"report: {command} (needs Plotly: pip install 'hms_ray[report]')"
    if not changed and file.is_file():
        return f"report: {file}"
    try:
        write_report(study.path, study.path.parent)
    # Of whatever kind: the results are stored already.
    except Exception as error:
        logger.warning("the report was not written: %s", one_line(error), exc_info=True)
        return f"report: not written, {one_line(error)}. Try: {command}"
    return f"report: {file}"
