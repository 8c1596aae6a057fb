"""Words to calls: no logic, and no heavy import before a command is known."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from hms_ray import __version__
from hms_ray.cli import blend as blends
from hms_ray.cli import data as folders
from hms_ray.cli import ladder as ladders
from hms_ray.cli import predict as predictions
from hms_ray.cli import study as studies
from hms_ray.errors import HmsRayError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: words after the program's name; those of the process if absent.

    Returns:
        Exit status: 0 done; 1 the command's own "no" (faults in a folder, steps of a ladder
        that failed, a sweep that failures left short); 2 an error, told on one line.
    """
    words = build_parser().parse_args(arguments)
    words.said = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return int(words.call(words))
    except HmsRayError as error:
        if words.debug:
            raise
        print(f"hms-ray {words.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nhms-ray {words.command}: stopped; the same command goes on.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe such as `| head` has seen enough.
        sys.stderr.close()
        return 0
    except OSError as error:
        if words.debug:
            raise
        where = f": {error.filename}" if error.filename else ""
        print(f"hms-ray {words.command}: {error.strerror or error}{where}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="hms-ray",
        description="Experiment sweeps on Ray for HMS - Harmful Brain Activity Classification.",
        epilog="A command's own options: hms-ray COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"hms-ray {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (
        folders.add_check,
        folders.add_simulate,
        folders.add_floor,
        folders.add_pack,
        folders.add_spectrogram,
        studies.add_train,
        studies.add_sweep,
        blends.add_blend,
        studies.add_leaderboard,
        predictions.add_predict,
        ladders.add_ladder,
        ladders.add_forest,
    ):
        command = add(commands)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser
