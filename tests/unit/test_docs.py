"""The pages describe every command, and every command on the pages exists."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from hms_ray.cli.main import main
from tests.command_line import commands, parse

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / folder / "README.md" for folder in (".", "search_spaces", "results", "cluster")]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
BLOCKS = "\n".join(re.findall(r"^```\w*\n(.*?)^```", TEXT, flags=re.M | re.S)).replace("\\\n", " ")
COMMANDS = re.findall(r"^(?:\.venv/bin/)?hms-ray (.*?)(?:\s+[#>].*)?$", BLOCKS, flags=re.M)


@pytest.mark.parametrize("name", commands())
def test_every_command_is_documented(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"`hms-ray {name}" in TEXT
    command = commands()[name]
    assert command.help
    for parameter in command.params:
        assert parameter.help, f"{name} {parameter.name}"
    assert main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert "--debug" in text
    assert not re.search(r"<(bool|str|int|float|path|list)", text), "a name of a Python type"


@pytest.mark.parametrize("words", sorted(set(COMMANDS)))
def test_every_command_of_the_pages_parses(words: str) -> None:
    parse(shlex.split(words))


def test_unknown_command_does_not_parse() -> None:
    for words in (["ladder", "poll", "a"], ["sweep", "demo", "--dat", "x"], ["blend"]):
        with pytest.raises(typer.TyperException):
            parse(words)


def test_pages_have_commands() -> None:
    assert len(COMMANDS) > 30


def test_readme_has_fewer_than_900_words() -> None:
    assert len(PAGES[0].read_text(encoding="utf-8").split()) < 900


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


def test_readme_and_makefile_have_the_same_demo() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    demo = re.search(r"^DEMO := (.*)$", makefile, flags=re.M)
    assert demo is not None
    recipe = makefile.replace("$(BIN)", ".venv/bin").replace("$(DEMO)", demo[1])
    for line in re.findall(r"^\.venv/bin/hms-ray .*$", BLOCKS, flags=re.M):
        assert f"\t{line.rstrip()}\n" in recipe, line
