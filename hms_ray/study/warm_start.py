"""Earlier studies whose results a new one may learn from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hms_ray.config.space import Space
from hms_ray.errors import StudyError
from hms_ray.study.folder import StudyFolder


def warm_start_studies(
    space: Space, results: str | Path, data: Mapping[str, Any]
) -> list[StudyFolder]:
    """The studies that ``warm_start`` names.

    Args:
        space: has ``warm_start``.
        results: folder of all studies.
        data: fingerprints of this study's ``rows`` and ``folds``.

    Raises:
        StudyError: if one does not exist, or has other rows or folds: scores of other rows
            cannot be compared.
    """
    found = []
    for name in space.warm_start:
        study = StudyFolder.open(name, results)
        other = study.identity.get("data", {})
        differ = [part for part in ("rows", "folds") if other.get(part) != data.get(part)]
        if differ:
            raise StudyError(
                "a warm start needs studies of the same rows and folds",
                got=f"other {' and '.join(differ)} in {name}",
                where="warm_start",
                fix=f"Remove {name} from warm_start.",
            )
        found.append(study)
    return found
