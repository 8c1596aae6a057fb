"""The arrows between the rooms run one way; read from the imports themselves."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "hms_ray"
# Low to high: a room imports itself and rooms of lower layers only.
LAYERS = [
    {"text"},
    {"errors"},
    {"storage"},
    {"config"},
    {"competition"},
    {"evaluate"},
    {"ensemble"},
    {"display"},
    {"signal"},
    {"pack"},
    {"simulate", "augment", "transforms"},
    {"train"},
    {"dataset"},
    {"experiment"},
    {"study"},
    {"ladder", "predict"},
    {"blend"},
    {"search"},
    {"report", "distributed"},
    {"sweep"},
    {"cli"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
MAX_ROOMS = 27
LOOSE_MODULES = {"__init__", "__main__", "errors", "text"}
WITH_TORCH = {"signal", "augment", "transforms", "train", "distributed"}
"""Rooms that compute with torch; the others must work without it."""
WITH_TORCH_INSIDE = {
    "pack/eeg.py",
    "predict/models.py",
    "experiment/in_process.py",
}
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
    if room not in {"distributed", "sweep"}:
        assert "ray" not in roots
    if room not in WITH_TORCH and str(file.relative_to(PACKAGE)) not in WITH_TORCH_INSIDE:
        assert not roots & {"torch", "timm"}
    if room == "train":
        assert not [name for name in imports(file) if name.startswith("hms_ray.competition.read")]
    if room not in {"cli", "simulate"}:
        assert not [name for name in imports(file) if name.startswith("hms_ray.simulate")]


def test_the_house_has_few_rooms_and_no_loose_modules() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    assert modules == LOOSE_MODULES
    assert len(packages | modules) <= MAX_ROOMS
    assert packages | modules - {"__init__"} == set(LEVEL)


@pytest.mark.parametrize("room", sorted(LEVEL.keys() - LOOSE_MODULES))
def test_each_room_says_what_it_holds_and_may_import(room: str) -> None:
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text("utf-8")))
    assert text is not None
    assert "ay import" in text
    assert len(text.split()) > 20


def test_no_circle_of_modules() -> None:
    """Module by module, imports at the top of files only: late ones run after loading."""
    names = {module_of(file): file for file in FILES}
    graph = {
        name: {
            target
            for node in ast.parse(file.read_text(encoding="utf-8")).body
            for target in targets_of(node)
            if target in names and target != name
        }
        for name, file in names.items()
    }
    assert list(TopologicalSorter(graph).static_order())


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def targets_of(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_room_is_a_drawer_for_odd_things() -> None:
    names = {part.removesuffix(".py") for file in FILES for part in file.parts[-3:]}
    assert not names & {"utils", "helpers", "common", "misc"}
