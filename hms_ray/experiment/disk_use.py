"""Disk use of a study, estimated before anything is packed or trained."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

import pandas as pd

from hms_ray.config.experiment import Experiment
from hms_ray.config.space import ResourcesConfig, Space
from hms_ray.dataset.label_rows import label_windows
from hms_ray.dataset.packs import missing_pack_bytes, pack_parts
from hms_ray.dataset.sources import sources_for
from hms_ray.display.store_table import size_text
from hms_ray.errors import ResourceError
from hms_ray.experiment.cost_estimate import checkpoint_weights
from hms_ray.experiment.in_process import cpus_and_gpus
from hms_ray.experiment.placement import workers_that_fit
from hms_ray.experiment.preflight import image_sizes_of, single_changes
from hms_ray.pack.build import default_pack_dir
from hms_ray.text import counted
from hms_ray.train.model import build_model

_OOF_ROW_BYTES: Final = 144
"""Of one trial: predictions of a row in the fold store and in the trial's folder, about 68
bytes each as measured (six float64 do not compress), and its score."""
_FREED_LATE: Final = 10
"""Trials whose weights wait to be freed, see ``study.kept_weights.FREE_EVERY``."""


@dataclass(frozen=True)
class DiskUse:
    """What a study will still write, in bytes.

    Attributes:
        weights: of the models of all folds and stages that are kept.
        fold_weights: of one trial.
        predictions: out-of-fold predictions.
        checkpoints: of the folds that are trained at once.
        packs: that do not exist yet.
    """

    weights: float
    fold_weights: float
    predictions: float
    checkpoints: float
    packs: float

    @property
    def results(self) -> float:
        """All that goes to the results folder."""
        return self.weights + self.predictions + self.checkpoints

    def text(self) -> str:
        """The parts in one line."""
        parts = {
            "weights": self.weights,
            "predictions": self.predictions,
            "checkpoints": self.checkpoints,
            "packs": self.packs,
        }
        return ", ".join(f"{name} {size_text(size)}" for name, size in parts.items())


def estimate(
    space: Space, rows: pd.DataFrame, n_trials: int, data_dir: Path, pack_dir: Path
) -> DiskUse:
    """Disk use of trials that are still to be trained.

    Weights are those of the mean model among the searched ones. Every stage stores its
    weights; stages that trials share are counted for each of them, to be on the safe side.

    Args:
        space: what to search.
        rows: training rows with their folds.
        n_trials: trials still to be trained.
        data_dir: competition folder.
        pack_dir: folder of packs.

    Raises:
        ModelError: if a model cannot be built.
    """
    resources, experiments = space.resources, list(single_changes(space))
    n_folds = int(rows["fold"].max()) + 1
    models = {(e.model.without_weights(), image_sizes_of(e)): e for e in experiments}
    one = fmean(map(_weights_bytes, models.values()))
    n_stored = 1
    if resources.share_stages:
        n_stored = max(len(experiment.training.stages) for experiment in experiments)
    of_trial = one * n_folds * n_stored
    data, sources = space.experiment.data, sources_for(space)
    parts = pack_parts(sources, rows, label_windows(data_dir, rows, data.unit, sources))
    return DiskUse(
        weights=of_trial * _n_kept(resources, n_trials),
        fold_weights=of_trial,
        predictions=n_trials * len(rows) * _OOF_ROW_BYTES,
        # A new file and the one that it replaces.
        checkpoints=one
        * 2
        * max(map(checkpoint_weights, experiments))
        * min(_n_at_once(resources), n_trials * n_folds),
        packs=sum(
            missing_pack_bytes(data_dir, pack_dir, *part, only_rows=data.holdout > 0)
            for part in parts
        ),
    )


def _n_at_once(resources: ResourcesConfig) -> int:
    """Folds that are trained at once; on an unknown cluster, as many as on this machine."""
    fitting = workers_that_fit(*cpus_and_gpus(resources), resources) // resources.workers
    return max(1, resources.max_groups or fitting)


def _n_kept(resources: ResourcesConfig, n_trials: int) -> int:
    if resources.keep_weights == "all":
        return n_trials
    return min(n_trials, resources.keep_weights + _FREED_LATE)


def _weights_bytes(experiment: Experiment) -> int:
    # The size of a model does not depend on pretrained weights, which may have to be loaded.
    config, sizes = experiment.model.without_weights(), image_sizes_of(experiment)
    model = build_model(config, sizes, experiment.input.channels)
    n_bytes: int = sum(
        value.numel() * value.element_size() for value in model.state_dict().values()
    )
    return n_bytes * (2 if experiment.training.precision == "float64" else 1)


def require_disk_space(
    space: Space,
    rows: pd.DataFrame,
    n_trials: int,
    data_dir: Path,
    results: Path,
    pack_dir: Path | None = None,
) -> str | None:
    """Checks that what a study will write fits on the disks of its results and packs.

    Args:
        space: see ``estimate``.
        rows: likewise.
        n_trials: likewise.
        data_dir: likewise.
        results: folder of all studies.
        pack_dir: folder of packs; default: beside the data.

    Returns:
        A line to print if more than half of the free space is needed; else None.

    Raises:
        ResourceError: if it does not fit.
        ModelError: if a model cannot be built.
    """
    if n_trials <= 0:
        return None
    pack_dir = default_pack_dir(data_dir) if pack_dir is None else pack_dir
    use = estimate(space, rows, n_trials, data_dir, pack_dir)
    places = {"results": _existing(results), "packs": _existing(pack_dir)}
    needed = {"results": use.results, "packs": use.packs}
    if _device(places["results"]) == _device(places["packs"]):
        needed = {"results": use.results + use.packs}
    note = None
    for name, n_bytes in needed.items():
        free = shutil.disk_usage(places[name]).free
        text = f"about {size_text(n_bytes)} needed ({use.text()}), {size_text(free)} free"
        if n_bytes > free:
            raise ResourceError(
                f"the disk of the {name} must have room for {counted(n_trials, 'trial')}",
                got=text,
                where=places[name],
                fix=_remedy(space, use, n_trials, free) if name == "results" else _OTHER_PACKS,
            )
        if n_bytes > free / 2:
            note = f"disk of the {name}: {text}"
    return note


_OTHER_PACKS: Final = "Free space there, or give another folder: --pack-dir DIR"


def _remedy(space: Space, use: DiskUse, n_trials: int, free: float) -> str:
    """What would make the results fit."""
    remedies = ["Free space: hms-ray store --free --age 30"]
    fitting = int((free - (use.results - use.weights) - use.packs) // max(use.fold_weights, 1.0))
    n_best = fitting - _FREED_LATE
    if 1 <= n_best < n_trials and space.parameters:
        remedies.append(
            "or keep only the weights of the best trials: "
            f"--set resources.keep_weights={min(n_best, 10)}"
        )
    elif space.parameters and fitting > 1:
        remedies.append("or train fewer trials: --trials N")
    else:
        remedies.append("or use another disk: --results DIR")
    return "; ".join(remedies)


def _existing(path: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _device(folder: Path) -> int:
    return folder.stat().st_dev
