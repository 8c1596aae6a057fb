"""Names and kinds of the folders below a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from hms_ray.errors import StudyError

STORE_NAME: Final = ".store"
LOCAL: Final = "local"
BLEND: Final = "blend"
FOREST: Final = "forest"
BOARD: Final = "board"
"""Of a study or ladder: the folder of its TensorBoard runs, ``board/0003`` or ``board/STEP``."""

RESERVED: Final = {
    STORE_NAME: "the fold store",
    LOCAL: "the logs of experiments that are trained without Ray",
    BLEND: "blends of several studies, see hms-ray blend",
    FOREST: "ladders combined over seeds, see hms-ray ladder pool",
}
"""Name -> what is in the folder of that name."""

Kind = Literal["study", "ladder", "blend", "combination of ladders", "competition folder"]

STUDY_FILE: Final = "study.json"
STEPS_FILE: Final = "steps.json"
BLEND_FILE: Final = "blend.json"
FOREST_FILE: Final = "forest.csv"
REPORT_FILE: Final = "report.html"
"""Of a study or ladder: made from its other files, at any time."""
REFERENCES: Final = "references"
REFIT_FILE: Final = "refit.json"
"""Of a trial: its models on all rows, see ``study.refit``."""
REFERENCE_FILE: Final = "reference.json"
"""Of a study by blend gain: ``references/0003/reference.json``."""

_KINDS: Final[dict[str, Kind]] = {
    STUDY_FILE: "study",
    STEPS_FILE: "ladder",
    "ladder.csv": "ladder",
    BLEND_FILE: "blend",
    FOREST_FILE: "combination of ladders",
    "train.csv": "competition folder",
}
"""File -> kind of a folder that has it; a folder is of the first kind that fits."""
_TABLE_SUFFIXES: Final = (".csv", ".parquet", ".npy")


def checked_name(name: str) -> str:
    """The name of a study, ladder or local run, which must be a plain folder name.

    Raises:
        StudyError: if it is not, if another kind of folder has this name, or if a command
            would take it for a file or an option.
    """
    if not name or name[0] in ".-" or {"/", "\\", "\0"} & set(name):
        raise StudyError(
            "a study's name must be a plain folder name",
            got=repr(name),
            fix="Use a name without slashes or a leading dot or dash: --study NAME.",
        )
    if name.lower() in RESERVED:
        raise StudyError(
            "a study must not have the name of another folder of the results",
            got=f"{name}, the folder of {RESERVED[name.lower()]}",
            fix="Use another name: --study NAME.",
        )
    if name.lower().endswith(_TABLE_SUFFIXES):
        raise StudyError(
            "a study must not have the name of a table: hms-ray blend would read a file",
            got=name,
            fix="Use a name without this ending: --study NAME.",
        )
    return name


def require_inside(path: Path, results: Path) -> None:
    """Checks that a folder to write to lies directly in the results folder, links followed.

    Args:
        path: need not exist.
        results: folder of all studies.

    Raises:
        StudyError: if it does not.
    """
    if path.resolve().parent != results.resolve():
        raise StudyError(
            "what a command writes to must lie in the results folder",
            got=f"{path}, which leads to {path.resolve()}",
            where=results,
            fix="Name its own results folder: --results DIR.",
        )


def places(name: str | Path, results: Path) -> list[Path]:
    """Where a study or ladder is looked for: by its name in a results folder, and as a path."""
    path = Path(name)
    # A name must not lead out of the results folder.
    return [path] if path.is_absolute() or ".." in path.parts else [results / path, path]


def kind_of(folder: Path) -> Kind | None:
    """What a folder holds; None if it is missing, empty or of no known kind."""
    return next((kind for file, kind in _KINDS.items() if (folder / file).is_file()), None)


def require_kind(folder: Path, kind: Kind, option: str) -> None:
    """Checks that a folder does not hold anything of another kind.

    Args:
        folder: need not exist.
        kind: what will be written to it.
        option: of the command that names the folder, for the remedy.

    Raises:
        StudyError: if it does.
    """
    found = kind_of(folder)
    if found not in (None, kind):
        raise StudyError(
            f"a {kind} needs a folder of its own",
            got=f"a {found}",
            where=folder,
            fix=f"Use another name: {option}.",
        )
