"""Names of studies and ladders that would lead out of the results folder are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

WRITERS = (
    ["sweep", "demo", "--data", "data", "--study"],
    ["train", "demo", "--data", "data", "--study"],
    ["train", "demo", "--data", "data", "--local", "--study"],
    ["ladder", "--data", "data", "--study"],
    ["store", "--free", "--dry-run", "--study"],
    *(["stop"], ["holdout"]),
)
READERS = (
    *(["show"], ["leaderboard"], ["replay"], ["blend"]),
    *(["submit", "--data", "data"], ["export", "--out", "out"], ["ladder", "pool"]),
)
"""They take paths too; a name must not become one by its way."""


@pytest.fixture
def outside(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study beside the results folder; a link in the results folder leads to it."""
    folder = tmp_path / "outside"
    shutil.copytree(results / "one", folder)
    (results / "link").symlink_to(folder)
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    return folder


def refused(words: list[str], outside: Path, error_line: Callable[..., str]) -> str:
    before = {path: path.stat().st_mtime_ns for path in outside.rglob("*")}
    line = error_line(*words)
    assert {path: path.stat().st_mtime_ns for path in outside.rglob("*")} == before
    return line


@pytest.mark.parametrize("kind", ["absolute", "link"])
@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
def test_nothing_is_written_outside_the_results_folder(
    words: list[str], kind: str, outside: Path, results: Path, error_line: Callable[..., str]
) -> None:
    name = {"absolute": str(outside), "link": "link"}[kind]
    if words[0] == "train" and "--local" in words and kind == "link":
        (results / "local").mkdir()
        (results / "local" / "link").symlink_to(outside)
    line = refused([*words, name, "--results", str(results)], outside, error_line)
    assert "must lie in the results folder" in line or "must be a plain folder name" in line


@pytest.mark.parametrize("words", [*WRITERS, *READERS], ids=" ".join)
def test_a_name_does_not_lead_out_of_the_results_folder(
    words: list[str], outside: Path, results: Path, error_line: Callable[..., str]
) -> None:
    line = refused([*words, "../outside", "--results", str(results)], outside, error_line)
    assert "../outside" in line
