"""Which options a command line gives, so that those that do not belong are refused."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from typing import TypeAlias

Options: TypeAlias = "argparse._ActionsContainer"
"""What options are added to, a command or a group of its options; argparse has no public
name for it."""


def given_options(command: argparse.ArgumentParser, words: Sequence[str]) -> dict[str, str]:
    """The options among the words, also those that say what is the default anyway.

    Args:
        command: the command's parser.
        words: the command line after the command's name, which the parser understood.

    Returns:
        Destination -> option as the help has it.
    """
    # Without defaults, only what is given comes out.
    probe = copy.deepcopy(command)
    for action in probe._actions:
        action.default = argparse.SUPPRESS
    found = vars(probe.parse_args(list(words)))
    return {
        action.dest: action.option_strings[0]
        for action in command._actions
        if action.option_strings and action.dest in found
    }


def options_of(group: argparse._ArgumentGroup, given: dict[str, str]) -> list[str]:
    """The given options that are of a group, in the order of the help."""
    return [given[action.dest] for action in group._group_actions if action.dest in given]
