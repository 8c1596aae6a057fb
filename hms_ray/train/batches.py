"""The data of a fold, and the batches of an epoch.

The global batches of an epoch are drawn, augmentation included, before each rank takes its
slice. So the same images are trained for any number of ranks, and a restart repeats the same
draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hms_ray.augment.draws import AUGMENTATIONS
from hms_ray.augment.plan import AugmentationPlan, draw_plan
from hms_ray.augment.shifts import plan_shifts
from hms_ray.competition.schema import N_CLASSES
from hms_ray.config.training import ResolvedStage, TrainingConfig
from hms_ray.errors import TrainingError
from hms_ray.text import counted
from hms_ray.train.heads import tier_targets
from hms_ray.train.label_rows import LabelRows
from hms_ray.train.losses import row_weights, smoothed, tier_factors
from hms_ray.train.process import Process
from hms_ray.train.seeds import seed_sequence
from hms_ray.transforms.views import Shape

if TYPE_CHECKING:
    from hms_ray.pack.store import Pack

RowIndices = NDArray[np.int64]
"""Positions in a study's rows."""


@dataclass(frozen=True)
class SourceRows:
    """The windows of a study's rows in one source.

    Attributes:
        pack: packed source of the windows.
        starts: (N,) int64, first pack position of each row's window.
        room: (N, 2) int64, positions by which each window can be moved to an earlier and to
            a later time (``Pack.room``); required for shifted windows.
        labels: the windows of the label rows (``FoldData.labels``) in the same pack.
    """

    pack: Pack
    starts: RowIndices
    room: RowIndices | None = None
    labels: SourceRows | None = None

    @property
    def shape(self) -> Shape:
        """Number of panels, frequencies and times of a window."""
        return len(self.pack.panels), self.pack.n_frequencies, self.pack.window

    def shifted(self, rows: RowIndices, shifts_s: NDArray[np.float64]) -> RowIndices:
        """First pack positions of windows shifted in time.

        Args:
            rows: (n,) rows of the windows.
            shifts_s: (n,) seconds towards later times; rounded to whole positions and
                clipped to ``room``.

        Raises:
            TrainingError: if ``room`` is not set.
        """
        if self.room is None:
            raise TrainingError("shifted windows need the room around them (Pack.room)")
        by = np.rint(shifts_s / self.pack.step_s).astype(np.int64)
        before, after = self.room[rows].T
        return self.pack.moved(self.starts[rows], by.clip(-before, after))

    def check(self, n_rows: int, source: str) -> None:
        """Checks that there are ``n_rows`` windows, all within the pack."""
        if self.starts.shape != (n_rows,):
            raise TrainingError(
                f"{n_rows} rows need {n_rows} windows of the source {source}",
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
    """All rows of a study, split for one fold.

    Attributes:
        sources: name of each source in use -> its windows.
        targets: (N, 6) float64, shares of votes, sum 1.
        total_votes: (N,) int64.
        train: training rows, positions in the arrays above.
        valid: validation rows; disjoint from ``train``.
        labels: label rows of all rows, for stages that draw them.
        scored: whether there must be validation rows.
    """

    sources: Mapping[str, SourceRows]
    targets: NDArray[np.float64]
    total_votes: RowIndices
    train: RowIndices
    valid: RowIndices
    labels: LabelRows | None = None
    scored: bool = True

    def __post_init__(self) -> None:
        n = len(self.targets)
        if self.targets.shape != (n, N_CLASSES) or self.total_votes.shape != (n,):
            raise TrainingError(
                f"{n} rows need ({n}, {N_CLASSES}) targets and ({n},) total votes",
                got=f"{self.targets.shape} and {self.total_votes.shape}",
            )
        if len(self.train) == 0 or (self.scored and len(self.valid) == 0):
            raise TrainingError(
                "a fold needs training and validation rows",
                got=f"{len(self.train)} and {len(self.valid)}",
            )
        for source, rows in self.sources.items():
            rows.check(n, source)
            if self.labels is not None and rows.labels is not None:
                rows.labels.check(len(self.labels.total_votes), source)
        shared = np.intersect1d(self.train, self.valid)
        if len(shared):
            raise TrainingError(
                "training and validation rows must be disjoint",
                got=f"{counted(len(shared), 'shared row')}, the first at position {shared[0]}",
            )


@dataclass(frozen=True)
class Batch:
    """One rank's part of one global batch.

    Attributes:
        rows: (b,) this rank's rows, positions in the study's rows.
        needed: (n,) rows whose windows the images need: ``rows``, then CutMix donors and
            mixup partners; or the members of mosaics; then partners of mixed signals.
        targets: (b, 6) targets of the images.
        tier_targets: (b, 18) the same by the tier of the rows that they come from.
        weights: (b,) weights of the images in the loss.
        plan: augmentation, in positions in ``needed``.
        n_global: rows of the global batch.
        shifts_s: (n,) seconds by which the windows of ``needed`` are shifted, or None.
        labels: (n,) label rows whose windows ``needed`` have instead of their own, or None.
        centre_shifts_s: (n,) seconds by which magnified centres are shifted more, or None.
    """

    rows: RowIndices
    needed: RowIndices
    targets: NDArray[np.float64]
    tier_targets: NDArray[np.float64]
    weights: NDArray[np.float64]
    plan: AugmentationPlan
    n_global: int
    shifts_s: NDArray[np.float64] | None = None
    labels: RowIndices | None = None
    centre_shifts_s: NDArray[np.float64] | None = None


def split_epoch(n_rows: int, batch_size: int, generator: np.random.Generator) -> list[RowIndices]:
    """Splits a random order of rows into nearly equal batches.

    Sizes differ by at most one, so that no small last batch has another weight per row or
    other batch statistics.

    Args:
        n_rows: at least 1.
        batch_size: size of the largest batch allowed.
        generator: draws the order.

    Returns:
        ceil(n_rows / batch_size) arrays of positions; together each row once.
    """
    order = generator.permutation(n_rows).astype(np.int64)
    return np.array_split(order, -(-n_rows // batch_size))


def plan_epoch(
    data: FoldData,
    rows: RowIndices,
    training: TrainingConfig,
    stage: ResolvedStage,
    image: tuple[tuple[int, int], Sequence[int]],
    seed_path: tuple[int, int, int],
    process: Process,
) -> list[Batch]:
    """Draws all global batches of an epoch and returns this rank's part of each.

    Args:
        data: the fold.
        rows: the stage's rows.
        training: batch size, seed, weights and smoothing.
        stage: loss and augmentation.
        image: (height, width) of the images and the widths of their views.
        seed_path: (fold, index of the stage, index of the epoch), from 0.
        process: rank and world size.

    Raises:
        TrainingError: if a batch has fewer rows than there are ranks, or a stage draws label rows
            and the fold has none.
        ConfigError: if images are too narrow for the mosaics of the configuration.
    """
    order, choice, moves = (
        np.random.default_rng(seed_sequence(training.seed, *seed_path, purpose))
        for purpose in ("order", "label row", "shift")
    )
    draws = {
        kind: np.random.default_rng(seed_sequence(training.seed, *seed_path, kind))
        for kind in AUGMENTATIONS
    }
    labels = _draw_labels(data, rows, stage, choice)
    # What has the votes that the stage's rows are trained on, and where.
    voted: FoldData | LabelRows = data
    positions = rows
    if labels is not None and data.labels is not None and stage.label_rows == "random_row":
        voted, positions = data.labels, labels
    weights, targets = _weights_and_targets(voted, training, stage, seed_path[2])
    by_tiers = tier_targets(targets, voted.total_votes)
    batches = []
    for places in split_epoch(len(rows), training.batch_size, order):
        batch = rows[places]
        if len(batch) < process.world_size:
            raise TrainingError(
                f"a batch must have at least one row per worker ({process.world_size})",
                got=counted(len(batch), "row"),
                where=f"stage {stage.name}",
                fix="Use fewer workers, a larger training.batch_size or more rows.",
            )
        votes = positions[places]
        own_weights = weights[votes]
        if training.normalise_weights:
            own_weights = own_weights / own_weights.mean()
        # By the votes themselves: smoothed targets share all classes.
        plan = draw_plan(stage.augment, voted.targets[votes], image, seed_path[2], draws)
        shifts = None
        if largest := stage.augment.window_shift_s:
            shifts = moves.uniform(-largest, largest, len(batch))
        centres = plan_shifts(len(batch), stage.augment.centre_shift, draws["centre_shift"])
        own = process.shard_rows(np.arange(len(batch)))
        needed, part = plan.part(own)
        batches.append(
            Batch(
                rows=batch[own],
                needed=batch[needed],
                targets=plan.targets(targets[votes])[own],
                tier_targets=plan.targets(by_tiers[votes])[own],
                weights=plan.weights(own_weights)[own],
                plan=part,
                n_global=len(batch),
                shifts_s=None if shifts is None else shifts[needed],
                labels=None if labels is None else labels[places][needed],
                centre_shifts_s=None if centres is None else centres[needed],
            )
        )
    return batches


def _draw_labels(
    data: FoldData, rows: RowIndices, stage: ResolvedStage, generator: np.random.Generator
) -> RowIndices | None:
    """The label row of each of a stage's rows in an epoch; None if rows have their own windows."""
    if stage.label_rows == "own":
        return None
    if data.labels is None:
        raise TrainingError("random label rows need the label rows of the fold (FoldData.labels)")
    return data.labels.drawn(rows, stage, generator)


def _weights_and_targets(
    voted: FoldData | LabelRows, training: TrainingConfig, stage: ResolvedStage, epoch: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights in the loss, and targets to train on, of rows or of label rows."""
    votes, targets = voted.total_votes, voted.targets
    weights = row_weights(stage.loss, votes)
    if training.tier_weights is not None:
        weights = weights * tier_factors(training.tier_weights, votes, epoch / stage.epochs)
    if training.label_smoothing is not None:
        targets = smoothed(training.label_smoothing, targets, votes)
    return weights, targets


def halves(batches: list[Batch]) -> list[tuple[float, list[Batch]]]:
    """The batches before each evaluation, with the share of the epoch that is then done."""
    middle = -(-len(batches) // 2)
    if len(batches) == 1:
        return [(1.0, batches)]
    return [(0.5, batches[:middle]), (1.0, batches[middle:])]


def chunks(rows: RowIndices, size: int) -> list[RowIndices]:
    """Splits rows into consecutive chunks of at most ``size``."""
    return [rows[first : first + size] for first in range(0, len(rows), size)]
