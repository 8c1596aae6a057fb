"""What the pages say exists, and what exists is on the pages."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

from hms_ray.cli.main import build_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "cluster" / "README.md"]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
BLOCKS = "\n".join(re.findall(r"^```\w*\n(.*?)^```", TEXT, flags=re.M | re.S)).replace("\\\n", " ")
COMMANDS = re.findall(r"^(?:\.venv/bin/)?hms-ray (.*?)(?:\s+#.*)?$", BLOCKS, flags=re.M)


def subparsers() -> dict[str, argparse.ArgumentParser]:
    for action in build_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("the parser has no commands")


@pytest.mark.parametrize("name", subparsers())
def test_every_command_is_documented(name: str) -> None:
    assert f"`hms-ray {name}" in TEXT


@pytest.mark.parametrize("name", subparsers())
def test_every_option_has_a_help_text(name: str) -> None:
    for action in subparsers()[name]._actions:
        assert action.help, f"{name} {action.option_strings or action.dest}"


@pytest.mark.parametrize("words", sorted(set(COMMANDS)))
def test_every_command_of_the_pages_is_understood(words: str) -> None:
    assert build_parser().parse_args(shlex.split(words)).call


def test_the_pages_have_commands() -> None:
    assert len(COMMANDS) > 10


def test_every_make_target_of_the_pages_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"make ([a-z]+)\b(?=`|\s+#|$)", TEXT, flags=re.M))
    assert {"demo", "test", "check"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def test_every_file_named_by_the_pages_exists() -> None:
    named = set(re.findall(r"(?:search_spaces|cluster|hms_ray)/[\w/.-]+\.\w+", TEXT))
    assert named
    missing = [name for name in named if not (ROOT / name).is_file()]
    assert not missing


def test_the_demo_of_the_readme_is_the_demo_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    demo = re.search(r"^DEMO := (.*)$", makefile, flags=re.M)
    assert demo is not None
    recipe = makefile.replace("$(BIN)", ".venv/bin").replace("$(DEMO)", demo[1])
    for line in re.findall(r"^\.venv/bin/hms-ray .*$", BLOCKS, flags=re.M):
        assert f"\t{line.rstrip()}\n" in recipe, line
