"""The command refit: a trial's experiment, trained on all rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hms_ray.cli.next_command import print_next
from hms_ray.cli.options import (
    RESULTS,
    Address,
    Data,
    Local,
    LocalThreads,
    LogLevel,
    PackDir,
    Results,
    TrustCode,
    flag,
    option,
    require_local_options,
)

if TYPE_CHECKING:
    from hms_ray.display.progress import Progress
    from hms_ray.experiment.fold_task import FoldTask
    from hms_ray.experiment.placement import Placement
    from hms_ray.ladder.run import Trainer
    from hms_ray.study.folder import StudyFolder


def refit(
    context: typer.Context,
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Study, or path of its folder.")],
    data: Data,
    trial: Annotated[int | None, option("Number of a trial.", "N", default="the best one")] = None,
    seeds: Annotated[int, option("Models to train, each with its own training seed.", "K")] = 1,
    with_holdout: Annotated[
        bool,
        flag("--with-holdout", "Train on the hold-out too; it can never be scored again."),
    ] = False,
    results: Results = RESULTS,
    pack_dir: PackDir = None,
    address: Address = None,
    local: Local = False,
    threads: LocalThreads = 1,
    trust_code: TrustCode = False,
    log_level: LogLevel = "INFO",
) -> None:
    """Train a finished trial on all rows but the hold-out, without a score.

    Each stage takes the epochs that cross-validation chose. The same command
    resumes. Use the models with submit or export and --models.
    """
    from hms_ray.storage.folder_names import require_inside
    from hms_ray.study.folder import StudyFolder
    from hms_ray.study.refit_run import RefitOptions, run_refit

    require_local_options(context, local=local)
    folder = StudyFolder.open(study, results)
    require_inside(folder.path, results)
    _require_code(folder, trial, results, trust_code=trust_code)
    if not local:
        from hms_ray.distributed.cluster import check_connection

        check_connection(address)
    options = RefitOptions(
        data_dir=data,
        results=results,
        trial=trial,
        seeds=seeds,
        with_holdout=with_holdout,
        pack_dir=pack_dir,
        log_level=log_level,
    )
    trainer = _trainer(folder, results, address, threads if local else None)
    print(run_refit(folder, options, trainer))
    number = folder.finished_trial(trial).number
    print_next(
        *("submit", f"{study}/{number:04d}", "--models", "both", "--data", data), results=results
    )


def _require_code(
    folder: StudyFolder, trial: int | None, results: Path, *, trust_code: bool
) -> None:
    """Checks that the code of a trial's model may run here, if it is one from elsewhere."""
    from hms_ray.config.import_path import is_import_path
    from hms_ray.predict.trial import read_models

    chosen = folder.finished_trial(trial)
    if is_import_path(chosen.experiment.model.name):
        name = f"{folder.name} {chosen.number:04d}"
        models = read_models(name, chosen.keys, results, trust_code=trust_code)
        # What would be trained is the experiment in the trial's folder.
        replace(models, experiment=chosen.experiment).require_code()


class _Tasks:
    """Trains tasks as the units of a ladder."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    @property
    def placement(self) -> Placement:
        return self._trainer.placement

    def train(self, tasks: Sequence[FoldTask], progress: Progress) -> dict[str, str]:
        from hms_ray.ladder.plan import LadderPlan

        costs = {task.key: 1.0 for task in tasks}
        return self._trainer.train(LadderPlan({}, [[task] for task in tasks], costs, {}), progress)


@contextmanager
def _trainer(
    folder: StudyFolder, results: Path, address: str | None, threads: int | None
) -> Iterator[_Tasks]:
    """Trains in this process if ``threads`` is given, else on Ray."""
    from hms_ray.cli.ladder import trainer_of

    resources = folder.space().resources
    with trainer_of(resources, results, address, threads, folder.scratch) as trainer:
        yield _Tasks(trainer)
