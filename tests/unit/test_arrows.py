"""The arrows between the rooms run one way; read from the imports themselves."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "hms_ray"
# Low to high: a room imports itself and rooms of lower layers only.
LAYERS = [
    {"errors", "wording"},
    {"files"},
    {"config_recipes"},
    {"config_augment", "config_input"},
    {"config_training"},
    {"config"},
    {"config_faults"},
    {"config_file"},
    {"competition"},
    {"signal"},
    {"folds", "pack"},
    {"evaluate"},
    {"simulate"},
    {"augment", "normalise", "pool", "model"},
    {"fit", "views"},
    {"train"},
    {"fold_store"},
    {"study_sources"},
    {"unusable"},
    {"prepare"},
    {"fold_task"},
    {"experiment"},
    {"preflight", "report"},
    {"study"},
    {"ladder", "predict"},
    {"blending"},
    {"sweep", "local", "packing"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
WITHOUT_TORCH = {
    "errors",
    "config_recipes",
    "config_augment",
    "config_input",
    "config_training",
    "config",
    "config_faults",
    "config_file",
} | {
    "files",
    "wording",
    "competition",
    "folds",
    "pack",
    "evaluate",
    "simulate",
    "fold_store",
    "study_sources",
    "unusable",
    "prepare",
    "study",
    "ladder",
    "predict",
    "blending",
}
WITH_TORCH = {"pack/eeg.py", "predict/models.py"}
"""Modules that compute with torch in rooms that are otherwise without; imported late."""
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are written in full"
            yield f"{node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_arrows_run_one_way(file: Path) -> None:
    room = room_of(file)
    if room == "__init__":
        assert not [name for name in imports(file) if name.startswith("hms_ray.")]
        return
    assert room in LEVEL, f"{room} has no layer: give it one here and in its documentation"
    for name in imports(file):
        parts = name.split(".")
        if parts[0] != "hms_ray" or len(parts) < 2 or parts[1].startswith("__"):
            continue
        target = parts[1]
        assert target in LEVEL, f"{file.name} imports {name}, a room without a layer"
        assert target == room or LEVEL[target] < LEVEL[room], f"{room} must not import {target}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_heavy_packages_stay_in_their_rooms(file: Path) -> None:
    room, roots = room_of(file), {name.split(".")[0] for name in imports(file)}
    if room != "sweep":
        assert "ray" not in roots
    if room in WITHOUT_TORCH and str(file.relative_to(PACKAGE)) not in WITH_TORCH:
        assert not roots & {"torch", "timm"}
    if room == "train":
        assert not [name for name in imports(file) if name.startswith("hms_ray.competition.read")]
    if room != "commands":
        assert not [name for name in imports(file) if name.startswith("hms_ray.simulate")] or (
            room == "simulate"
        )


def test_no_room_is_a_drawer_for_odd_things() -> None:
    names = {part.removesuffix(".py") for file in FILES for part in file.parts[-3:]}
    assert not names & {"utils", "helpers", "common", "misc"}
