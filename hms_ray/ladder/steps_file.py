"""``steps.json`` of a ladder's folder: what it must hold, and what older ones lack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hms_ray.errors import StudyError

FORMAT: Final = 1
STEPS_FILE: Final = "steps.json"

ABOUT_KEYS: Final = (
    *("data", "simulated", "simulator", "scale", "command"),
    *("seed", "machine", "date", "floors"),
)
"""What is told of a ladder: where its data are, whether and how they were simulated, the
scale, command and seed of the run, its machine and date, and the KL that simulated votes
leave (floor -> score -> nats), None where that is not known."""

FIX: Final = "Run the ladder again: steps that are in the fold store are not trained again."
"""What to do about a ladder's folder that is damaged."""

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
}
"""What ``steps.json`` says of a step, by name."""

_STAGE_2_FIGURES: Final = frozenset({0.4142, 0.4240, 0.4608})
"""Published two-stage figures, for ladders written before manifests named a figure's rows."""


def check_about(about: Any, where: Path) -> None:
    """Refuses what does not tell of a run by ``ABOUT_KEYS``.

    Raises:
        StudyError: naming the keys that are missing.
    """
    missing = [name for name in ABOUT_KEYS if name not in about] if about else list(ABOUT_KEYS)
    if missing or not isinstance(about["simulated"], bool):
        raise StudyError(
            f"a ladder must be told about by {', '.join(ABOUT_KEYS)}, simulated true or false",
            got=f"nothing about {', '.join(missing)}" if missing else about["simulated"],
            where=where,
            fix=FIX,
        )


def with_newer_facts(content: dict[str, Any]) -> dict[str, Any]:
    """The same, and of older ladders the rows of published figures and no addresses."""
    if not isinstance(content.get("steps"), list):
        return content
    return {
        **content,
        "steps": [
            {
                "published_rows": "stage_2"
                if step.get("published_cv") in _STAGE_2_FIGURES
                else "all",
                "keys": None,
                **step,
            }
            if isinstance(step, dict)
            else step
            for step in content["steps"]
        ],
    }


def check_content(content: Mapping[str, Any], file: Path) -> None:
    """Refuses a readable ``steps.json`` that is not one.

    Raises:
        StudyError: where its format is another one, or a key is missing or no such value.
    """
    if content.get("format") != FORMAT:
        raise StudyError(
            f"the format of {STEPS_FILE} must be {FORMAT}",
            got=content.get("format", "none"),
            where=file,
            fix="It is another release's: run the ladder again with this one.",
        )
    for name, kind in (("about", dict), ("rows", str), ("steps", list)):
        if not isinstance(content.get(name), kind):
            raise StudyError(
                f"{STEPS_FILE} must have {name}", got=content.get(name), where=file, fix=FIX
            )
    check_about(content["about"], file)
    for number, step in enumerate(content["steps"]):
        for name, kinds in {**STEP_TYPES, "oof": (str,)}.items():
            if not (isinstance(step, dict) and name in step and isinstance(step[name], kinds)):
                raise StudyError(
                    f"step {number} must have {name}",
                    got=step.get(name, "none") if isinstance(step, dict) else step,
                    where=file,
                    fix=FIX,
                )
