"""What a bench of a space found, kept for the sweeps of that space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hms_ray.config.experiment import canonical
from hms_ray.config.space import Space
from hms_ray.display.run_cost import Estimate
from hms_ray.errors import StudyError
from hms_ray.storage.hashing import digest
from hms_ray.storage.structured_files import json_text, read_json, write_text
from hms_ray.study.folder import StudyFolder
from hms_ray.study.identity import data_identity

if TYPE_CHECKING:
    from hms_ray.experiment.bench_command import Machines

BENCH_FOLDER: Final = ".bench"
"""Below a results folder: estimates of spaces."""
ASSUMED_KEPT_SHARE: Final = 0.7
"""Of the folds, with the default pruning rule: what it is built to reach at most."""
START_UP_S: Final = 25.0
"""Start of Ray and of the first worker group, on a machine of two cores (measured: 20 to 30)."""


@dataclass(frozen=True)
class BenchEstimate:
    """What a bench of a space found.

    Attributes:
        trial_s: seconds of all folds of the mean trial, one after the other in one group.
        kept_share: share of all folds that are expected to be trained; 1 if no study has reported
            what pruning saves.
        made: ISO 8601, UTC.
        n_folds: of a trial.
    """

    trial_s: float
    kept_share: float
    made: str
    n_folds: int

    def run(self, n_trials: int, slots: int, *, pruned: bool = True) -> Estimate:
        """Estimated wall time of some trials: rounds of equal folds in all slots.

        Args:
            n_trials: to be finished.
            slots: worker groups at once.
            pruned: whether trials may be pruned.
        """
        n_jobs = n_trials * self.n_folds * (self.kept_share if pruned else 1.0)
        n_rounds = math.ceil(round(n_jobs, 6) / slots)
        return Estimate(START_UP_S + n_rounds * self.trial_s / self.n_folds, "bench")


def kept_share(study: str | None, default: str, results: Path) -> tuple[float, str] | None:
    """Share of the folds that a search trains with pruning, and where that share is from.

    Args:
        study: name of a study that must exist; None: ``default``, if there is such a study.
        default: likewise.
        results: folder of all studies.

    Returns:
        Of a study with pruned trials; None without one.

    Raises:
        StudyError: if ``study`` does not exist.
    """
    folder = StudyFolder.find(default, results) if study is None else None
    if study is not None:
        folder = StudyFolder.open(study, results)
    ended = [] if folder is None else [trial for trial in folder.trials() if trial.keys]
    n_folds = max((len(trial.keys) for trial in ended), default=0)
    trained = sum(len(trial.keys) for trial in ended)
    if folder is None or trained == n_folds * len(ended):
        return None
    return trained / (n_folds * len(ended)), f"as in {folder.name}, {len(ended)} ended trials"


def bench_space(
    space: Space,
    name: str,
    data_dir: Path,
    results: Path,
    *,
    study: str | None = None,
    fold_table: Path | None = None,
    pack_dir: Path | None = None,
    machines: Machines | None = None,
) -> None:
    """Measures a space, prints its cost and keeps the estimate for sweeps.

    Args:
        space: what would be searched.
        name: of the space.
        data_dir: competition folder.
        results: folder of all studies.
        study: see ``kept_share``; default: ``name``, if there is such a study.
        fold_table: file with folds to use.
        pack_dir: folder of packs; default: beside the data.
        machines: see ``bench``. Default: this machine.
    """
    # Imported late: it imports torch, and others only read estimates.
    from hms_ray.experiment.bench_command import bench, this_machine

    known = kept_share(study, name, results)
    found = bench(
        space,
        name,
        data_dir,
        results,
        kept=known or (ASSUMED_KEPT_SHARE, "an assumption: no study with pruned trials"),
        fold_table=fold_table,
        pack_dir=pack_dir,
        machines=machines or this_machine,
    )
    made = datetime.now(UTC).isoformat(timespec="seconds")
    share = known[0] if known else 1.0
    estimate = BenchEstimate(found.trial_s, share, made, found.prepared.n_folds)
    write_bench(results, space, data_identity(found.prepared), found.machines, estimate)


def _bench_file(
    results: Path, space: Space, data: Mapping[str, Any], machines: Mapping[str, int]
) -> Path:
    searched = {
        path: parameter.model_dump(mode="json") for path, parameter in space.parameters.items()
    }
    resources = space.resources
    group = [resources.workers, resources.cpus_per_worker, resources.gpus_per_worker]
    key = digest([canonical(space.experiment), searched, group, data, machines])
    return results / BENCH_FOLDER / f"{key[:32]}.json"


def write_bench(
    results: Path,
    space: Space,
    data: Mapping[str, Any],
    machines: Mapping[str, int],
    estimate: BenchEstimate,
) -> None:
    """Keeps an estimate for sweeps; a later one replaces it.

    It belongs to the experiment, the searched values, the resources of a worker group, the data
    and the machines; budget, seed and metric do not matter.

    Args:
        results: folder of all studies.
        space: what would be searched.
        data: see ``study.identity.data_identity``.
        machines: kind of machine -> how many there are.
        estimate: what was found.
    """
    write_text(_bench_file(results, space, data, machines), json_text(asdict(estimate)))


def read_bench(
    results: Path, space: Space, data: Mapping[str, Any], machines: Mapping[str, int]
) -> BenchEstimate | None:
    """The last estimate for these arguments, see ``write_bench``; None without a readable one."""
    try:
        return BenchEstimate(**read_json(_bench_file(results, space, data, machines), dict))
    except (StudyError, TypeError):
        return None
