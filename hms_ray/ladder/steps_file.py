"""``steps.json`` of a ladder's folder: its keys and their checks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hms_ray.errors import StudyError
from hms_ray.storage import folder_names

FORMAT: Final = 1
STEPS_FILE: Final = folder_names.STEPS_FILE

ABOUT_KEYS: Final = (
    *("data", "simulated", "simulator", "scale", "command"),
    *("seed", "machine", "date", "floors"),
)
"""Facts of a ladder's run: its data, whether and how they were simulated, scale, command and
seed, machine and date, and the KL of the oracles (oracle -> score -> nats; None if unknown)."""

FIX: Final = "Run the ladder again: folds in the fold store are not trained again."
"""Remedy for a damaged folder of a ladder."""

STEP_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "name": (str,),
    "chain": (str,),
    "change": (str,),
    "before": (str, type(None)),
    "kind": (str,),
    "optimistic": (bool,),
    "weights": (dict, type(None)),
    "fold_minutes": (float, int),
    "saved_minutes": (float, int),
    "published_cv": (float, int, type(None)),
    "published_lb": (float, int, type(None)),
    "published_rows": (str,),
    "keys": (dict, type(None)),
    "published_last": (float, int, type(None)),
    "checkpoint": (str, type(None)),
}
"""Field of a step in ``steps.json`` -> its types."""


def with_new_fields(step: dict[str, Any]) -> dict[str, Any]:
    """A step's content with the fields that older ladders do not have."""
    checkpoint = "best" if step.get("optimistic") else "last"
    return {"published_last": None, "checkpoint": checkpoint, **step}


def check_about(about: Any, where: Path) -> None:
    """Checks the facts of a run against ``ABOUT_KEYS``.

    Raises:
        StudyError: names the missing keys.
    """
    missing = [name for name in ABOUT_KEYS if name not in about] if about else list(ABOUT_KEYS)
    if missing or not isinstance(about["simulated"], bool):
        raise StudyError(
            f"about must have {', '.join(ABOUT_KEYS)}, with simulated true or false",
            got=f"no {', '.join(missing)}" if missing else about["simulated"],
            where=where,
            fix=FIX,
        )


def check_content(content: Mapping[str, Any], file: Path) -> None:
    """Checks the content of a ``steps.json``.

    Raises:
        StudyError: for another format, a missing key or a value of another type.
    """
    if content.get("format") != FORMAT:
        raise StudyError(
            f"the format of {STEPS_FILE} must be {FORMAT}",
            got=content.get("format", "none"),
            where=file,
            fix="Run the ladder again with this release; another one wrote the file.",
        )
    for name, kind in (("about", dict), ("rows", str), ("steps", list)):
        if not isinstance(content.get(name), kind):
            raise StudyError(
                f"{STEPS_FILE} must have {name}", got=content.get(name), where=file, fix=FIX
            )
    check_about(content["about"], file)
    for number, step in enumerate(content["steps"]):
        known = with_new_fields(step) if isinstance(step, dict) else {}
        for name, kinds in {**STEP_TYPES, "oof": (str,)}.items():
            if name not in known or not isinstance(known[name], kinds):
                raise StudyError(
                    f"step {number} must have {name}",
                    got=known.get(name, "none") if known else step,
                    where=file,
                    fix=FIX,
                )
