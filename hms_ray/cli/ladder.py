"""Commands on ladders of experiments: ladder, forest."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hms_ray.cli.options import Commands, add_results_option

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from hms_ray.config.space import ResourcesConfig
    from hms_ray.ladder.run import Trainer

MANIFEST = Path("search_spaces/ladder/ladder.yaml")


def add_ladder(commands: Commands) -> argparse.ArgumentParser:
    """Adds ``ladder``."""
    command = commands.add_parser(
        "ladder",
        help="run the published ladder and tell what each step brings",
        description="Runs every step of a ladder that the fold store does not hold yet, all on "
        "the same rows and folds, and tells what each one brings.",
    )
    command.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="competition folder (a simulated one, made in RESULTS/.ladder-data)",
    )
    command.add_argument(
        "--scale",
        metavar="NAME",
        help="put the overlay NAME.yaml beside the manifest over all: small",
    )
    command.add_argument(
        "--file", metavar="MANIFEST", type=Path, default=MANIFEST, help=f"steps ({MANIFEST})"
    )
    command.add_argument(
        "--ablate",
        metavar="FILE",
        type=Path,
        help="instead of a ladder: this experiment, and each of its switches off alone",
    )
    command.add_argument(
        "--steps",
        metavar="NAME",
        action="append",
        default=[],
        help="only this step and what its blend is made of (repeatable)",
    )
    command.add_argument(
        "--set", metavar="A.B=C", action="append", default=[], help="change a value of every step"
    )
    command.add_argument(
        "--study",
        metavar="NAME",
        help="name below the results folder (ladder; with --steps ladder-steps; with --ablate "
        "ablation-FILE)",
    )
    add_results_option(command)
    command.add_argument(
        "--pack-dir", metavar="DIR", type=Path, help="folder of packs (DATA/packed)"
    )
    command.add_argument(
        "--folds", metavar="FILE", type=Path, help="fold table to use: row_id, patient_id, fold"
    )
    command.add_argument("--address", metavar="ADDR", help="running Ray cluster (starts its own)")
    command.add_argument(
        "--local", action="store_true", help="in this process, without Ray: breakpoints work"
    )
    command.add_argument(
        "--threads", metavar="N", type=int, default=1, help="torch threads (with --local; 1)"
    )
    command.set_defaults(call=_run_ladder)
    return command


def _run_ladder(words: argparse.Namespace) -> int:
    from functools import partial

    from hms_ray.ladder.command import LadderCall, asked_ladder, run_command
    from hms_ray.simulate.ladder import oracle_scores, simulation_of

    ladder, name = asked_ladder(words.file, words.ablate, words.scale, words.set, words.steps)
    data = words.data or _own_data(words.results)
    call = LadderCall(
        data_dir=data,
        results=words.results,
        name=words.study or name,
        simulator=simulation_of(data),
        floors=partial(oracle_scores, data),
        scale=words.scale or "full",
        words=words.said,
        fold_table=words.folds,
        pack_dir=words.pack_dir,
    )
    return run_command(ladder, call, partial(_trainer, words, ladder.resources))


def _own_data(results: Path) -> Path:
    import os

    from hms_ray.report.progress import bar
    from hms_ray.simulate.ladder import default_folder

    with bar("simulating", "patients") as progress:
        folder = default_folder(results, os.cpu_count() or 1, progress)
    print(f"no --data: simulated data of the default profile, {folder}")
    return folder


def _trainer(
    words: argparse.Namespace, resources: ResourcesConfig, scratch: Path
) -> AbstractContextManager[Trainer]:
    from contextlib import nullcontext

    if words.local:
        from hms_ray.ladder.local import LocalTrainer

        return nullcontext(LocalTrainer(words.threads, share_stages=resources.share_stages))
    from hms_ray.distributed.ladder_trainer import RayTrainer

    return RayTrainer(resources, scratch, words.results, address=words.address)


def add_forest(commands: Commands) -> argparse.ArgumentParser:
    """Adds ``forest``."""
    command = commands.add_parser(
        "forest", help="pool ladders of several seeds and plot what each step brings"
    )
    command.add_argument("ladders", metavar="NAME", nargs="+", help="ladder, or its folder's path")
    command.add_argument(
        "--control",
        metavar="NAME",
        nargs="+",
        action="extend",
        default=[],
        help="ladders of a negative control",
    )
    command.add_argument(
        "--out", metavar="DIR", type=Path, help="folder to write to (RESULTS/forest)"
    )
    add_results_option(command)
    command.set_defaults(call=_run_forest)
    return command


def _run_forest(words: argparse.Namespace) -> int:
    from hms_ray.ladder.multi_seed import forest

    print(forest(words.ladders, words.control, words.results, words.out))
    return 0
