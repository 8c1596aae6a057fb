"""The commands of the program, and a command line that is parsed without running it."""

from typing import Any

import typer

from hms_ray.cli.main import app


def commands(group: Any = None, before: str = "") -> dict[str, Any]:
    """Name -> command, those of groups such as ``ladder pool`` included."""
    found: dict[str, Any] = {}
    for name, command in (group or typer.main.get_command(app)).commands.items():
        found[before + name] = command
        if hasattr(command, "commands"):
            found |= commands(command, f"{before}{name} ")
    return found


def parse(words: list[str]) -> None:
    """Parses a command line without running it."""
    program: Any = typer.main.get_command(app)
    for command in commands(program).values():
        command.callback = None
    program.invoke(program.make_context("hms-ray", words))
