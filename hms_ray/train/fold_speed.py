"""Speed of a fold: plain numbers that a measurement finds, see ``train.speed``."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class EpochSpeed:
    """Speed of one kind of epoch: a stage's augmentation, with or without mosaic.

    Seconds per image of the global batch, one value per repetition.

    Attributes:
        draw_s: to draw batches and augmentation.
        first_s: to train images of rows that no earlier pass has read.
        later_s: to train images of rows that were read before.
        input_share: share of ``later_s`` in which images were made; the rest is forward,
            backward and optimiser.
    """

    draw_s: float
    first_s: tuple[float, ...]
    later_s: tuple[float, ...]
    input_share: tuple[float, ...]


@dataclass(frozen=True)
class FoldSpeed:
    """Speed of a fold of one experiment.

    Attributes:
        epochs: (stage, whether mosaic applies) -> speed of such an epoch.
        prepare_s: seconds to read the rows, open the packs and build the model.
        fit_s: seconds per training row to fit normalisations, per repetition.
        restart_s: seconds that training takes longer after an evaluation, because the ranks of a
            group prepare their all-reduces anew; per repetition, 0 with one rank.
        save_s: seconds to write the weights once.
        scoring_first_s: seconds per row of the first evaluation, in all variants of the row.
        scoring_later_s: seconds per image of later ones.
        n_cached: rows whose windows are read once only; those after them are read anew in
            each epoch.
        memory_bytes: largest memory of this process, or that torch allocated on a GPU.
        pack_bytes: size of the packs in use, part of ``memory_bytes`` if they are resident
            on a GPU.
        image_sizes: height and width of each image.
        precision: of the forward pass.
    """

    epochs: dict[tuple[int, bool], EpochSpeed]
    prepare_s: float
    fit_s: tuple[float, ...]
    restart_s: tuple[float, ...]
    save_s: float
    scoring_first_s: tuple[float, ...]
    scoring_later_s: tuple[float, ...]
    n_cached: int
    memory_bytes: int
    pack_bytes: int
    image_sizes: tuple[tuple[int, int], ...]
    precision: str

    def images_per_s(self) -> float:
        """Images trained per second, the median over all kinds of epochs and repetitions."""
        return 1 / statistics.median(s for speed in self.epochs.values() for s in speed.later_s)


def pooled(speeds: Sequence[FoldSpeed]) -> FoldSpeed:
    """The speed of one group among several that were measured at the same time.

    Args:
        speeds: of the same experiment, one per group; their repetitions are joined.
    """
    first = speeds[0]
    return replace(
        first,
        epochs={
            kind: EpochSpeed(
                draw_s=statistics.median(speed.epochs[kind].draw_s for speed in speeds),
                first_s=tuple(s for speed in speeds for s in speed.epochs[kind].first_s),
                later_s=tuple(s for speed in speeds for s in speed.epochs[kind].later_s),
                input_share=tuple(s for speed in speeds for s in speed.epochs[kind].input_share),
            )
            for kind in first.epochs
        },
        prepare_s=statistics.median(speed.prepare_s for speed in speeds),
        fit_s=tuple(s for speed in speeds for s in speed.fit_s),
        restart_s=tuple(s for speed in speeds for s in speed.restart_s),
        save_s=statistics.median(speed.save_s for speed in speeds),
        scoring_first_s=tuple(s for speed in speeds for s in speed.scoring_first_s),
        scoring_later_s=tuple(s for speed in speeds for s in speed.scoring_later_s),
        n_cached=min(speed.n_cached for speed in speeds),
        memory_bytes=max(speed.memory_bytes for speed in speeds),
    )
