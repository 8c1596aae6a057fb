"""What ends well prints the next command, with the names of this run."""

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hms_ray.cli.main import main
from tests.command_line import parse

HEAVY = (
    *("simulate.folder.simulate_folder", "competition.check.check_folder"),
    *("competition.check.check_table", "dataset.pack_command.pack_folder"),
    "dataset.pack_command.space_to_pack",
    *("sweep.command.sweep", "blend.fit_command.blend", "ladder.command.run_command"),
    *("blend.submit.submit", "blend.export.export", "experiment.local_command.train_locally"),
)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands that call no room, in an empty folder."""
    report = SimpleNamespace(ok=True, to_text=str, to_json=str)
    for name in HEAVY:
        found: Any = report if "check" in name else 0
        monkeypatch.setattr(f"hms_ray.{name}", lambda *_, found=found, **__: found)
    stored = SimpleNamespace(without_models=lambda: ["m n"])
    monkeypatch.setattr("hms_ray.blend.stored.read_blend", lambda _: stored)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").touch()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("simulate --out 'my data'", "check 'my data'"),
        ("simulate --out a --signals 0", "check --labels a/labels.csv"),
        ("check a", "pack a"),
        ("check a --json", None),
        ("check a --table-only", None),
        ("pack a", "sweep demo --data a"),
        ("pack a --space b --pack-dir c", "sweep b --data a --pack-dir c"),
        ("pack a --space b --set d=1", "sweep b --data a --set d=1"),
        ("sweep demo --data a", "blend demo"),
        ("sweep demo --data a --study b --results c", "blend b --results c"),
        ("train ladder/9_panels_4 --data 'a b' --study c", "submit c --data 'a b'"),
        (
            "train demo --data a --local --fold 0 --set training.batch_size=8 --folds b",
            "sweep demo --data a --folds b --set training.batch_size=8",
        ),
        ("train ladder/9_panels_4 --data a --local", "train ladder/9_panels_4 --data a"),
        ("blend one", "submit results/blend --data DIR --predictions 'm n=FILE'"),
        (
            "blend one --out 'b c' --results d",
            "submit 'b c' --data DIR --predictions 'm n=FILE' --results d",
        ),
        ("submit one/3 --data a --results b", "export one/3 --out DIR --results b"),
        ("submit one --data a --train-rows", None),
        ("export one --out 'a b' --results c", "submit 'a b' --data DIR"),
        ("ladder --data a --study b", "ladder pool b LADDER_OF_ANOTHER_SEED"),
    ],
)
def test_the_next_command_can_be_pasted(
    words: str, expected: str | None, light: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(shlex.split(words)) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
    assert lines == ([] if expected is None else [f"next: hms-ray {expected}"])
    if expected is not None:
        parse(shlex.split(expected))


@pytest.mark.parametrize("words", ["sweep demo --data a", "train demo --data a", "check a"])
def test_what_fails_prints_none(
    words: str,
    light: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("hms_ray.sweep.command.sweep", lambda *_, **__: 1)
    faulty = SimpleNamespace(ok=False, to_text=str)
    monkeypatch.setattr("hms_ray.competition.check.check_folder", lambda *_, **__: faulty)
    assert main(shlex.split(words)) == 1
    assert "next: " not in capsys.readouterr().out
