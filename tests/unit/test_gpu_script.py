"""The script of the GPU tests and benchmarks, as far as it needs no GPU."""

import ast
import re
import sys
import time
from pathlib import Path

import pytest

from tests.gpu import run

ROOT = Path(__file__).parents[2]
WITHOUT_RAY = "distributed", "sweep", "search", "cli"
"""Rooms that may import Ray or Optuna."""


def part(code: str, limit_s: float = 20.0) -> run.Outcome:
    return run.run_part("some", [sys.executable, "-S", "-c", code], limit_s)


def test_rows_of_a_part_become_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        'print("began"); print("ROW " + \'{"case": "eager", "images_per_s": 1234.6, "note": "x"}\')'
    )
    good, bad = part(code), part(f"{code}; raise SystemExit(3)")
    assert capsys.readouterr().out == "  began\n" * 2
    assert [(outcome.fault, len(outcome.rows)) for outcome in (good, bad)] == [
        (None, 1),
        ("exit status 3", 1),
    ]
    lines = run.table([good, bad])
    assert lines[:3] == [
        "| part | case | images/s | note |",
        "|---|---|---:|---|",
        "| some | eager | 1,235 | x |",
    ]
    assert re.fullmatch(r"\| some \| done \| \| \d+ s in all \|", lines[3])
    assert lines[5].startswith("| some | FAILED: exit status 3 |")


def test_a_part_that_hangs_ends_with_its_processes_and_keeps_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    child = f"import time; time.sleep(1.2); open({str(file)!r}, 'w')"
    code = (
        "import subprocess, sys, time\n"
        'print("ROW " + \'{"case": "a"}\', flush=True)\n'
        f"subprocess.Popen([sys.executable, '-S', '-c', {child!r}])\n"
        "time.sleep(60)"
    )
    began = time.monotonic()
    outcome = part(code, limit_s=0.7)
    assert time.monotonic() - began < 10
    assert outcome.fault == "ended after 0.7 s"
    assert outcome.rows == [{"case": "a"}]
    time.sleep(max(0.0, 1.6 - (time.monotonic() - began)))
    assert not file.exists()


def test_one_failed_part_makes_the_exit_status_and_the_file_has_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {"loop": None, "precision": "exit status 1"}
    monkeypatch.setattr(
        run, "run_part", lambda name, command, limit: run.Outcome(name, 1.0, made[name])
    )
    monkeypatch.setattr(run.subprocess, "run", _machine)
    file = tmp_path / "table.md"
    assert run.main([str(file), "--part", "loop"]) == 0
    assert run.main([str(file), "--part", "loop", "--part", "precision"]) == 1
    written = file.read_text()
    assert written.startswith("Some GPU, CUDA 13.0; torch ")
    assert re.search(r"; \d{4}-\d\d-\d\d\n\n\| part", written)
    assert "| precision | FAILED: exit status 1 | | 1 s in all |" in written
    assert written.split("\n\n")[1] in capsys.readouterr().out


class _Machine:
    returncode, stdout = 0, "Some GPU, CUDA 13.0\n"


def _machine(*words: object, **named: object) -> _Machine:
    return _Machine()


def test_missing_packages_are_named_with_ways_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.missing({"json": "json", "no_such_module": "such-package"}) == ["such-package"]
    monkeypatch.setattr(run, "MODULES", {"no_such_module": "such-package"})
    assert run.main([]) == 2
    printed = capsys.readouterr().err
    for text in ("missing packages: such-package", "pip download", "--no-deps", "PYTHONPATH="):
        assert text in printed


def test_every_part_has_a_limit_and_the_script_starts_them() -> None:
    tree = ast.parse((ROOT / "tests/gpu/parts.py").read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert run.LIMITS_S.keys() <= functions
    assert "tests.gpu.run" in (ROOT / "tests/gpu/run.sh").read_text()


def test_nothing_on_its_path_imports_a_room_of_ray() -> None:
    waiting = [ROOT / "tests/gpu" / name for name in ("run.py", "parts.py", "test_gpu.py")]
    seen: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file in seen or not file.exists():
            continue
        seen.add(file)
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                words = name.split(".")
                assert words[0] not in ("ray", "optuna"), file
                assert not (words[0] == "hms_ray" and words[1:2] and words[1] in WITHOUT_RAY), file
                if words[0] == "tests":
                    waiting.append(ROOT.joinpath(*words).with_suffix(".py"))
    assert ROOT / "tests/fold_data.py" in seen
