"""Which studies, references, ladders and blends of a results folder use which stored folds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from hms_ray.storage.folder_names import (
    BLEND_FILE,
    REFERENCE_FILE,
    REFERENCES,
    REFIT_FILE,
    STEPS_FILE,
)
from hms_ray.text import command_line

TRIAL_FILE: Final = "result.json"

_PLACES: Final = (
    f"*/trials/*/{TRIAL_FILE}",
    f"*/trials/*/{REFIT_FILE}",
    f"*/confirm/*/{TRIAL_FILE}",
    f"*/{STEPS_FILE}",
    f"*/{BLEND_FILE}",
    f"*/*/{BLEND_FILE}",
    f"*/{REFERENCES}/*/{REFERENCE_FILE}",
)
"""Files that name cache keys, below a results folder."""
_KEY: Final = re.compile(r"\b[0-9a-f]{64}\b")


def uses(results: Path) -> dict[str, list[Path]]:
    """Cache key -> files that name it, relative to the results folder.

    The files are read as text, so that one that is damaged or of another version still
    counts as a user of its folds.
    """
    found: dict[str, list[Path]] = {}
    for file in _files(results):
        with suppress(OSError, UnicodeDecodeError):
            for key in dict.fromkeys(_KEY.findall(file.read_text(encoding="utf-8"))):
                found.setdefault(key, []).append(file.relative_to(results))
    return found


def _files(results: Path) -> Iterator[Path]:
    for place in _PLACES:
        yield from sorted(results.glob(place))


def owner(file: Path) -> str:
    """The study, ladder or blend that a file of ``uses`` belongs to, by its folder's name."""
    return file.parts[0]


def how_to_train(results: Path, key: str) -> str:
    """What the user can do to train a fold again, for the remedy of an error."""
    files = uses(results).get(key, ())
    if command := training_command(results, key):
        return f"Train it again: {command}"
    for file in files:
        if file.name == REFIT_FILE:
            words = ["refit", owner(file), "--trial", int(file.parent.name), "--data", "DIR"]
            command = command_line(*words, "--results", results)
            return f"Train it again, with the same options: {command}"
    ladders = [owner(file) for file in files if file.name == STEPS_FILE]
    if ladders:
        return f"Train it again: run the command of the ladder {ladders[0]} again."
    return "Train it again: run the command that trained it."


def training_command(results: Path, key: str) -> str | None:
    """The command that trains the trial of a fold again; None if no trial uses the fold."""
    for file in uses(results).get(key, ()):
        if file.name == TRIAL_FILE:
            experiment = results / file.parent / "experiment.yaml"
            name = f"{owner(file)}-{file.parent.name}"
            rows = results / owner(file) / "rows.parquet"
            words = ["train", experiment, "--data", "DIR", "--folds", rows]
            return command_line(*words, "--study", name, "--results", results)
    return None
