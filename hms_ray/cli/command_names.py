"""Commands by name; earlier names of commands and options are refused with the new ones."""

from __future__ import annotations

from typing import Any, Final

from typer.core import TyperGroup

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


class Commands(TyperGroup):
    """A group of commands that remembers which one runs, for the report of an error."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the next word names.

        Raises:
            ConfigError: if the word is an earlier name of a command.
        """
        refuse_old_name(args[0])
        resolved = super().resolve_command(ctx, args)
        ctx.meta[COMMAND] = f"{ctx.command_path} {resolved[0]}"
        return resolved


def refuse_old_name(name: str) -> None:
    """Refuses a command, or a command and an option, by a name that it had earlier.

    Raises:
        ConfigError: with the new name.
    """
    if name in RENAMED:
        raise ConfigError(f"{name.split()[-1]} was renamed", fix=f"Use {RENAMED[name]}.")
