"""What Optuna's own tools show of a study."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from hms_ray.search.journal import StudyTitle
from hms_ray.study.folder import StudyFolder
from hms_ray.text import command_line


def study_title(folder: StudyFolder, data: Mapping[str, str | bool]) -> StudyTitle:
    """Name, data and command of a study.

    Args:
        folder: the study.
        data: attributes of its data, if known.
    """
    attributes = {
        "study": folder.name,
        "command": command_line(*sys.argv[1:]),
        "rows": folder.identity["data"]["rows"],
        **data,
    }
    return StudyTitle(name=folder.name, attributes=attributes)
