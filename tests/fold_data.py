"""A small fold with separable classes, and a stand-in for a pack."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from hms_ray.config.experiment import Experiment, ModelConfig
from hms_ray.config.inputs import InputConfig, used_sources
from hms_ray.config.training import StageConfig, TrainingConfig
from hms_ray.signal.recipes import MEL_PANELS, RawRecipe, layout_of
from hms_ray.train.batches import FoldData, SourceRows
from hms_ray.train.images import Images
from hms_ray.train.label_rows import LabelRows
from hms_ray.train.model import build_model
from hms_ray.train.process import Process
from hms_ray.train.result import FoldResult
from hms_ray.train.score import predict_rows
from hms_ray.train.windows import open_sources

PANELS = ("LL", "RL", "LP", "RP")


@dataclass(frozen=True)
class ExamplePack:
    """The attributes of a pack that training reads."""

    values: Any
    window: int
    n_frequencies: int
    panels: tuple[str, ...] = PANELS
    step_s: float = 2.0
    fingerprint: str = ""

    def moved(self, first: Any, by: Any) -> Any:
        return first + by


def example_pack(
    n_positions: int,
    window: int = 64,
    n_frequencies: int = 16,
    panels: tuple[str, ...] = PANELS,
) -> ExamplePack:
    size = (n_positions, len(panels) * n_frequencies)
    values = np.random.default_rng(5).normal(1.0, 2.0, size=size)
    return ExamplePack(values.astype(np.float16), window, n_frequencies, panels)


def example_fold(n_train: int = 45, n_valid: int = 13, gaps: bool = True, **pack: int) -> FoldData:
    """Rows whose class is visible as power in one of six frequency bands.

    Each has its own recording, twice as long as a window.
    """
    rng = np.random.default_rng(7)
    n = n_train + n_valid
    made = example_pack(n * 2 * pack.get("window", 64), **pack)
    starts = np.arange(n, dtype=np.int64) * 2 * made.window + rng.integers(0, made.window, n)
    total_votes = rng.integers(1, 20, n)
    classes = rng.integers(0, 6, n)
    votes = np.array(
        [
            rng.multinomial(v, 0.1 + 0.4 * np.eye(6)[k])
            for v, k in zip(total_votes, classes, strict=True)
        ]
    )
    band = max(made.n_frequencies // 6, 1)
    for start, k in zip(starts, classes, strict=True):
        window = made.values[start : start + made.window].reshape(made.window, 4, -1)
        window[:, :, k * band : (k + 1) * band] += 3.0
    if gaps:
        made.values[starts[0] : starts[0] + 7, :20] = np.nan
        made.values[starts[-1] + 3, :] = np.nan
    order = rng.permutation(n).astype(np.int64)
    before = starts % (2 * made.window)
    room = np.stack([before, made.window - before], axis=1)
    return FoldData(
        sources={"kaggle": SourceRows(made, starts, room)},  # type: ignore[arg-type]
        targets=votes / total_votes[:, None],
        total_votes=total_votes,
        train=np.sort(order[:n_train]),
        valid=np.sort(order[n_train:]),
    )


def two_sources(data: FoldData | None = None) -> FoldData:
    """The rows of a fold with a second source, windows of 4 x 10 x 20."""
    data = data or example_fold()
    n = len(data.targets)
    pack = example_pack(20 * n, window=20, n_frequencies=10)
    starts = 20 * np.random.default_rng(8).permutation(n).astype(np.int64)
    eeg = SourceRows(pack, starts, np.zeros((n, 2), np.int64))  # type: ignore[arg-type]
    return replace(data, sources={**data.sources, "eeg": eeg})


def all_sources(data: FoldData | None = None) -> FoldData:
    """``two_sources`` with panels in mel order, pictures of 18 pairs x 10 x 20, and signals
    of 18 x 1 x 40."""
    data = two_sources(data)
    n = len(data.targets)
    eeg = data.sources["eeg"]
    panels = replace(eeg.pack, panels=MEL_PANELS)  # type: ignore[type-var]
    named = SourceRows(panels, eeg.starts, eeg.room)
    pairs = layout_of(RawRecipe()).panels
    pictures = replace(eeg, pack=example_pack(20 * n, 20, 10, pairs))  # type: ignore[type-var]
    pack = example_pack(40 * n, 40, 1, pairs)
    starts = 40 * np.arange(n, dtype=np.int64)
    raw = SourceRows(pack, starts, np.zeros((n, 2), np.int64))  # type: ignore[arg-type]
    return replace(data, sources={**data.sources, "eeg": named, "pairs": pictures, "raw": raw})


def with_label_rows(data: FoldData) -> FoldData:
    """The rows of a fold with one to four label rows each, of other windows and votes.

    The label row of most votes has as many as its row.
    """
    rng = np.random.default_rng(9)
    counts = rng.integers(1, 5, len(data.targets))
    first = np.concatenate([[0], np.cumsum(counts)])
    n = int(first[-1])
    totals = rng.integers(1, data.total_votes.repeat(counts) + 1)
    totals[first[1:] - 1] = data.total_votes
    votes = np.array([rng.multinomial(total, np.full(6, 1 / 6)) for total in totals])
    sources = {}
    for name, rows in data.sources.items():
        starts = rng.integers(0, len(rows.pack.values) - rows.pack.window + 1, n)
        sources[name] = replace(
            rows, labels=SourceRows(rows.pack, starts, np.zeros((n, 2), np.int64))
        )
    labels = LabelRows(first, votes / totals[:, None], totals)
    return replace(data, sources=sources, labels=labels)


def sources_of(config: InputConfig, n_rows: int = 30, margin: int = 0) -> FoldData:
    """Random windows for the sources of an input, in packs of their recipes' layouts.

    Each window can be moved by ``margin`` positions either way; a few values are missing.
    """
    sources = {}
    for name, recipe in used_sources(config).items():
        assert recipe is not None
        layout = layout_of(recipe)
        step = layout.n_times + 2 * margin
        pack = example_pack(n_rows * step, layout.n_times, layout.n_frequencies, layout.panels)
        pack.values[5 : 5 + margin + 2] = np.nan
        made = replace(pack, step_s=layout.step_s, fingerprint=name)
        starts = margin + step * np.arange(n_rows, dtype=np.int64)
        room = np.full((n_rows, 2), margin, np.int64)
        sources[name] = SourceRows(made, starts, room)  # type: ignore[arg-type]
    votes = np.random.default_rng(9).integers(0, 3, size=(n_rows, 6))
    votes[np.arange(n_rows), np.arange(n_rows) % 6] += 12
    rows, total = np.arange(n_rows), votes.sum(1)
    return FoldData(sources, votes / total[:, None], total, rows[3:], rows[:3])


def example_experiment(
    model: str = "test_efficientnet",
    inputs: dict[str, Any] | None = None,
    epochs: int = 1,
    **training: Any,
) -> Experiment:
    """By default one epoch in batches of 12 on a tiny model without dropout."""
    training = {"batch_size": 12, "stages": (StageConfig(epochs=epochs),), **training}
    return Experiment(
        input=InputConfig(**(inputs or {})),
        model=ModelConfig(name=model, pretrained=False, drop_path=0.0, dropout=0.0),
        training=TrainingConfig(**training),
    )


def open_images(
    data: FoldData,
    config: InputConfig,
    dtype: torch.dtype = torch.float32,
    cache_bytes: int = 0,
    kind: Any = "auto",
) -> Images:
    """Images of a fold's rows on the CPU."""
    packs = {name: rows.pack for name, rows in data.sources.items()}
    windows = open_sources(packs, torch.device("cpu"), kind)
    return Images(data, windows, config, dtype, cache_bytes)


def predicted_again(experiment: Experiment, result: FoldResult, data: FoldData) -> np.ndarray:
    """Validation rows by a model that is built anew, as by ``submit`` and exports."""
    images = open_images(data, experiment.input)
    images.load_normalisation(result.normalisation)
    model = build_model(experiment.model, images.size, images.n_channels)
    model.load_state_dict(result.weights)
    model = model.to(memory_format=torch.channels_last)
    return predict_rows(model, images, data.valid, 12, "float32", Process())


def cut_windows(source: SourceRows, rows: Any) -> torch.Tensor:
    """(n, P, F, T) float16, cut out of the pack by hand."""
    panels, frequencies, times = source.shape
    cut = np.stack([source.pack.values[start : start + times] for start in source.starts[rows]])
    return torch.from_numpy(cut.reshape(-1, times, panels, frequencies)).permute(0, 2, 3, 1)
