"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What commands are added to; argparse has no public name for it."""


def add_results_option(command: argparse.ArgumentParser) -> None:
    """Adds ``--results``."""
    command.add_argument(
        "--results",
        metavar="DIR",
        type=Path,
        default=Path("results"),
        help="folder of all studies (results)",
    )


def add_study_options(command: argparse.ArgumentParser) -> None:
    """Adds the study and ``--results``."""
    command.add_argument("study", metavar="STUDY", help="study name, or the path of its folder")
    add_results_option(command)
