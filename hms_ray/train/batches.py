"""What a fold is trained on, and in which batches.

The batches of an epoch are drawn for the whole group, augmentation included, before
each rank takes its slice: so the same images are trained whatever the number of ranks,
and a restart repeats the same draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hms_ray.augment.draws import KINDS
from hms_ray.augment.plan import Plan, draw_plan
from hms_ray.competition.schema import N_CLASSES
from hms_ray.config.training import ResolvedStage, TrainingConfig
from hms_ray.errors import TrainingError
from hms_ray.text import counted
from hms_ray.train.losses import row_weights
from hms_ray.train.process import Process
from hms_ray.train.seeds import seed_sequence
from hms_ray.transforms.views import Shape

if TYPE_CHECKING:
    from hms_ray.pack.store import Pack

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class SourceRows:
    """Where the windows of a study's rows are in one source.

    Attributes:
        pack: packed source of the windows.
        starts: (N,) int64, first pack position of each row's window.
        room: (N, 2) int64, positions by which each may be moved, as ``Pack.room`` gives
            them; needed where windows are shifted.
    """

    pack: Pack
    starts: Rows
    room: Rows | None = None

    @property
    def shape(self) -> Shape:
        """Panels, frequencies and times of a window."""
        return len(self.pack.panels), self.pack.n_frequencies, self.pack.window

    def shifted(self, rows: Rows, shifts_s: NDArray[np.float64]) -> Rows:
        """First pack positions of windows that are moved in time.

        Args:
            rows: (n,) rows whose windows they are.
            shifts_s: (n,) seconds towards later times; rounded to whole positions, and no
                further than recordings go.

        Raises:
            TrainingError: where it is not known how far they go.
        """
        if self.room is None:
            raise TrainingError("shifted windows need the room that their recordings leave")
        by = np.rint(shifts_s / self.pack.step_s).astype(np.int64)
        before, after = self.room[rows].T
        return self.pack.moved(self.starts[rows], by.clip(-before, after))

    def check(self, n_rows: int, source: str) -> None:
        """Refuses other than ``n_rows`` windows, and windows that leave the pack."""
        if self.starts.shape != (n_rows,):
            raise TrainingError(
                f"{n_rows} rows need as many windows of the source {source}",
                got=f"{self.starts.shape}",
            )
        last = len(self.pack.values) - self.pack.window
        outside = np.flatnonzero((self.starts < 0) | (self.starts > last))
        if len(outside):
            raise TrainingError(
                f"a row's window must start from 0 to {last} of its pack of {source}",
                got=f"{self.starts[outside[0]]} for the row at position {outside[0]}",
            )


@dataclass(frozen=True)
class FoldData:
    """All rows of a study, divided for one fold.

    Attributes:
        sources: name of each source in use -> its windows.
        targets: (N, 6) float64, shares that sum to 1.
        total_votes: (N,) int64.
        train: rows to train on, positions into the above.
        valid: rows to predict, none of them among ``train``.
    """

    sources: Mapping[str, SourceRows]
    targets: NDArray[np.float64]
    total_votes: Rows
    train: Rows
    valid: Rows

    def __post_init__(self) -> None:
        n = len(self.targets)
        if self.targets.shape != (n, N_CLASSES) or self.total_votes.shape != (n,):
            raise TrainingError(
                f"{n} rows need ({n}, {N_CLASSES}) targets and ({n},) total votes",
                got=f"{self.targets.shape} and {self.total_votes.shape}",
            )
        if len(self.train) == 0 or len(self.valid) == 0:
            raise TrainingError(
                "a fold needs training and validation rows",
                got=f"{len(self.train)} and {len(self.valid)}",
            )
        for source, rows in self.sources.items():
            rows.check(n, source)
        shared = np.intersect1d(self.train, self.valid)
        if len(shared):
            raise TrainingError(
                "a row must not be trained on and predicted in one fold",
                got=f"{len(shared)} such rows, the first at position {shared[0]}",
            )


@dataclass(frozen=True)
class Batch:
    """One rank's part of one global batch.

    Attributes:
        rows: (b,) own rows, positions into the study's rows.
        needed: rows whose windows own images are made of: ``rows`` and after them those
            that give CutMix bands or are mixed in, or the members of mosaics.
        targets: (b, 6) targets of own images.
        weights: (b,) weights of own images in the loss.
        plan: augmentation, in terms of positions in ``needed``.
        n_global: rows of the whole batch.
        shifts_s: (n,) seconds by which the windows of ``needed`` are moved; None where
            none is.
    """

    rows: Rows
    needed: Rows
    targets: NDArray[np.float64]
    weights: NDArray[np.float64]
    plan: Plan
    n_global: int
    shifts_s: NDArray[np.float64] | None = None


def split_epoch(n_rows: int, batch_size: int, generator: np.random.Generator) -> list[Rows]:
    """A random order of rows in nearly equal batches.

    Every row comes once; sizes differ by at most one, so that no small last batch
    weighs or measures differently.

    Args:
        n_rows: at least 1.
        batch_size: largest batch.
        generator: draws the order.

    Returns:
        ceil(n_rows / batch_size) arrays of positions.
    """
    order = generator.permutation(n_rows).astype(np.int64)
    return np.array_split(order, -(-n_rows // batch_size))


def plan_epoch(
    data: FoldData,
    rows: Rows,
    training: TrainingConfig,
    stage: ResolvedStage,
    image: tuple[tuple[int, int], Sequence[int]],
    address: tuple[int, int, int],
    process: Process,
) -> list[Batch]:
    """This rank's part of every batch of an epoch.

    Args:
        data: the fold.
        rows: the stage's rows.
        training: batch size, seed and whether weights are normalised.
        stage: loss and augmentation.
        image: (height, width) of the images and the widths of their views.
        address: (fold, number of the stage, number of the epoch).
        process: rank and world size.

    Raises:
        TrainingError: where a batch has fewer rows than there are ranks.
        ConfigError: where mosaics are asked for of images that are too narrow.
    """
    order, moves = (
        np.random.default_rng(seed_sequence(training.seed, *address, purpose))
        for purpose in ("order", "shift")
    )
    draws = {
        kind: np.random.default_rng(seed_sequence(training.seed, *address, kind)) for kind in KINDS
    }
    all_weights = row_weights(stage.loss, data.total_votes)
    batches = []
    for places in split_epoch(len(rows), training.batch_size, order):
        batch = rows[places]
        if len(batch) < process.world_size:
            raise TrainingError(
                f"a batch needs a row for each of {process.world_size} workers",
                got=counted(len(batch), "row"),
                where=f"stage {stage.name}",
                fix="Use fewer workers, a larger training.batch_size or more rows.",
            )
        targets, weights = data.targets[batch], all_weights[batch]
        if training.normalise_weights:
            weights = weights / weights.mean()
        plan = draw_plan(stage.augment, targets, image, address[2], draws)
        shifts = None
        if largest := stage.augment.window_shift_s:
            shifts = moves.uniform(-largest, largest, len(batch))
        own = process.shard_rows(np.arange(len(batch)))
        needed, part = plan.part(own)
        batches.append(
            Batch(
                rows=batch[own],
                needed=batch[needed],
                targets=plan.targets(targets)[own],
                weights=plan.weights(weights)[own],
                plan=part,
                n_global=len(batch),
                shifts_s=None if shifts is None else shifts[needed],
            )
        )
    return batches


def chunks(rows: Rows, size: int) -> list[Rows]:
    """Rows in consecutive chunks of at most ``size``."""
    return [rows[first : first + size] for first in range(0, len(rows), size)]
