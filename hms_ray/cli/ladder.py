"""Commands on ladders of experiments: ladder, ladder pool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hms_ray.cli.command_names import Command, Commands
from hms_ray.cli.next_command import print_next
from hms_ray.cli.options import (
    RESULTS,
    Address,
    FoldTable,
    Local,
    LocalThreads,
    LogLevel,
    PackDir,
    Results,
    Settings,
    flag,
    given_options,
    option,
    require_local_options,
)

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from hms_ray.config.space import ResourcesConfig
    from hms_ray.ladder.run import Trainer


class _Ladders(Commands):
    """``ladder NAME`` is ``ladder --file NAME``, unless NAME is, or nearly is, a command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words of the command line after ``ladder``."""
        from difflib import get_close_matches

        if args and not args[0].startswith("-") and not get_close_matches(args[0], self.commands):
            args = ["--file", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_Ladders, subcommand_metavar="[NAME] | pool")


@app.callback(invoke_without_command=True)
def ladder(
    context: typer.Context,
    data: Annotated[
        Path | None,
        option(
            "Competition folder.",
            "DIR",
            default="simulated data of 300 patients, in RESULTS/.ladder-data",
        ),
    ] = None,
    scale: Annotated[
        str | None,
        option(
            "Overlay in the folder of the manifest that changes all steps, such as small.",
            "NAME",
            default="none",
        ),
    ] = None,
    file: Annotated[
        str,
        option(
            "The ladder: published, gold, or a YAML file that lists the steps; ladder NAME for "
            "short.",
            "NAME",
        ),
    ] = "published",
    ablate: Annotated[
        str | None,
        option(
            "Instead of a ladder: train this experiment, and again with each of its "
            "techniques switched off.",
            "FILE",
        ),
    ] = None,
    steps: Annotated[
        list[str] | None,
        option(
            "Only this step and the members of its blend; can be repeated.", "NAME", default="all"
        ),
    ] = None,
    settings: Settings = None,
    seeds: Annotated[
        str | None,
        option(
            "Train once with each of these training seeds, into the folders NAME-seed0, ...",
            "S,S,...",
            default="training.seed of the steps",
        ),
    ] = None,
    study: Annotated[
        str | None,
        option(
            "Name of the ladder's folder.",
            "NAME",
            default="ladder, or gold; with --steps ladder-steps; with --ablate ablation-FILE",
        ),
    ] = None,
    results: Results = RESULTS,
    pack_dir: PackDir = None,
    folds: FoldTable = None,
    address: Address = None,
    local: Local = False,
    threads: LocalThreads = 1,
    log_level: LogLevel = "INFO",
    plan: Annotated[
        bool, flag("--plan", "Print folds and image visits of each step; train nothing.")
    ] = False,
) -> int:
    """Run a ladder of experiments and print what each step gains: published, or gold.

    All steps use the same rows and folds. The same command resumes a ladder
    that was stopped: finished folds are reused from the fold store.
    """
    from functools import partial

    from hms_ray.config.shipped import find_manifest, find_space
    from hms_ray.ladder.command import (
        LadderCall,
        ladder_folder,
        print_plan,
        run_command,
        seeded,
        training_seeds,
    )
    from hms_ray.ladder.select import select_ladder
    from hms_ray.simulate.ladder_data import oracle_scores, simulation_of

    if context.invoked_subcommand is not None:
        _require_no_options(context)
        return 0
    require_local_options(context, local=local)
    if not local:
        from hms_ray.distributed.cluster import check_connection

        check_connection(address)
    experiment = None if ablate is None else find_space(ablate)
    numbers = training_seeds(seeds, settings or [])
    manifest = find_manifest(file)
    chosen, name = select_ladder(manifest, experiment, scale, settings or [], steps or [])
    folder = data or _own_data(results)
    call = LadderCall(
        data_dir=folder,
        results=results,
        name=study or name,
        simulator=simulation_of(folder),
        oracle_scores=partial(oracle_scores, folder),
        scale=scale or "full",
        argv=context.obj,
        fold_table=folds,
        pack_dir=pack_dir,
        log_level=log_level,
        local=local,
    )
    if plan:
        print_plan(chosen, call, len(numbers) or 1)
        print_next(*(word for word in context.obj if word != "--plan"))
        return 0
    trainer = partial(trainer_of, chosen.resources, results, address, threads if local else None)
    if not numbers:
        status = run_command(chosen, call, trainer)
        others = [call.name, "LADDER_OF_ANOTHER_SEED"]
    else:
        runs = [seeded(chosen, call, seed) for seed in numbers]
        for _, one in runs:
            # The last seed's folder is checked before the first seed is trained for hours.
            ladder_folder(results, one.name)
        # All of them, so that one failed step does not stop the seeds that follow.
        status = max([run_command(ladder, one, trainer) for ladder, one in runs])
        others = [one.name for _, one in runs]
    if status == 0 and any(one.before for one in chosen.steps):
        print_next("ladder", "pool", *others, results=results)
    return status


def _require_no_options(context: typer.Context) -> None:
    given = given_options(context)
    if given:
        from hms_ray.errors import ConfigError

        raise ConfigError("ladder pool takes no options of ladder", got=", ".join(given))


def _own_data(results: Path) -> Path:
    import os

    from hms_ray.display.live import bar, print_text
    from hms_ray.simulate.ladder_data import default_folder

    with bar("simulating", "patients") as progress:
        folder = default_folder(results, os.cpu_count() or 1, progress)
    print_text(f"no --data given: using simulated data in {folder}")
    return folder


def trainer_of(
    resources: ResourcesConfig,
    results: Path,
    address: str | None,
    threads: int | None,
    scratch: Path,
) -> AbstractContextManager[Trainer]:
    """Trains folds in this process if ``threads`` is given, else on Ray."""
    from contextlib import nullcontext

    if threads is not None:
        from hms_ray.experiment.in_process import InProcessRunner
        from hms_ray.ladder.local import LocalTrainer

        runner = InProcessRunner(
            threads,
            share_stages=resources.share_stages,
            windows=resources.windows,
            checkpoint_every_s=resources.checkpoint_every_s,
            local_cache=resources.local_cache,
        )
        return nullcontext(LocalTrainer(runner))
    from hms_ray.distributed.ladder_trainer import RayTrainer

    return RayTrainer(resources, scratch, results, address=address)


@app.command(cls=Command)
def pool(
    ladders: Annotated[
        list[str], typer.Argument(metavar="NAME", help="Ladders, or paths of their folders.")
    ],
    control: Annotated[
        list[str] | None,
        option("Ladder of a negative control; can be repeated.", "NAME"),
    ] = None,
    out: Annotated[
        Path | None,
        option("Folder to write to.", "DIR", default="RESULTS/forest"),
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Combine ladders of several seeds and draw a forest plot of what each step gains."""
    from hms_ray.ladder.multi_seed import combine

    print(combine(ladders, control or [], results, out))
