"""Commands by name; former names of commands and options are refused with the new ones."""

from __future__ import annotations

from typing import Any, Final

from typer.core import TyperCommand, TyperGroup

from hms_ray.cli.options import COMMAND
from hms_ray.errors import ConfigError

RENAMED: Final = {
    "floor": "hms-ray oracle",
    "forest": "hms-ray ladder pool",
    "predict": "hms-ray submit",
    "blend --apply": "hms-ray submit FILE",
    "blend --cap": "--max-family-weight",
    "blend --fix": "--fixed-weight",
    "blend --recipe": "--published",
    "blend --sets": "--subsets",
    "pack --for": "--space",
}
"""Command, or command and option -> its new name."""


def renamed(name: str) -> ConfigError:
    """The error of a former name, a key of ``RENAMED``."""
    return ConfigError(f"{name.split()[-1]} was renamed", fix=f"Use {RENAMED[name]}.")


def _no_type(ctx: Any) -> None:
    """Shown beside an argument in the help."""


class _PlainHelp:
    """A command with the options of the program, whose help names no Python types."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Arguments and options; those of the program stand before ``--help``."""
        *own, help_option = super().get_params(ctx)  # type: ignore[misc]
        for parameter in own:
            if parameter.param_type_name == "argument":
                parameter.display_type_rich = _no_type
        help_option.metavar = ""
        root = ctx.find_root().command
        shared = [] if self is root else [one for one in root.params if one.name == "debug"]
        return [*own, *shared, help_option]


class Command(_PlainHelp, TyperCommand):
    """A command."""


class Commands(_PlainHelp, TyperGroup):
    """A group of commands that remembers which one runs, for the report of an error."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the next word names.

        Raises:
            ConfigError: if the word is a former name of a command.
        """
        if args[0] in RENAMED:
            raise renamed(args[0])
        resolved = super().resolve_command(ctx, args)
        ctx.meta[COMMAND] = f"{ctx.command_path} {resolved[0]}"
        return resolved
