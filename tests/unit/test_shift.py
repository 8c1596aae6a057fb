"""Shifted windows in training: which rows, how far, and what does not change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hms_ray.augment.cutmix import apply_cutmix
from hms_ray.config.augmentation import AugmentConfig, CutMixConfig
from hms_ray.config.experiment import Experiment
from hms_ray.config.inputs import InputConfig
from hms_ray.config.loading import validate_space
from hms_ray.config.training import StageConfig, TrainingConfig
from hms_ray.config.values import replace_values
from hms_ray.errors import ConfigError, TrainingError
from hms_ray.pack.store import Pack
from hms_ray.train.batches import Batch, FoldData, SourceRows, plan_epoch
from hms_ray.train.downsampled import DownsampledWindows
from hms_ray.train.loop import train_fold
from hms_ray.train.process import Process
from hms_ray.train.seeds import seed_sequence
from hms_ray.train.windows import Resident
from tests.fold_data import PANELS, example_experiment, example_fold, open_images
from tests.view_images import make_image

CPU = torch.device("cpu")
SHIFT_S = 12.0
VIEWS = ("panels", "eeg panels", "eeg percentiles")
INPUTS: dict[str, Any] = {"views": VIEWS, "eeg": {"margin_s": SHIFT_S}}
MARGIN, EEG_WINDOW, EEG_STEP_S = 30, 20, 0.4


def shifting_fold() -> FoldData:
    """Rows with windows in recordings of their own and in a pack with a margin."""
    data = example_fold()
    n, kaggle = len(data.targets), data.sources["kaggle"]
    rng = np.random.default_rng(3)
    lengths = np.full(n, 2 * kaggle.pack.window)
    recordings = pd.DataFrame(
        {"offset": lengths.cumsum() - lengths, "length": lengths, "n_missing": 0}
    )
    whole = _pack("recordings", kaggle.pack.values, 64, 16, 2.0, recordings)
    item = 2 * (EEG_WINDOW + MARGIN)
    values = rng.normal(size=(n * item, 40)).astype(np.float16)
    room = rng.integers(0, MARGIN + 1, (n, 2))
    room[:4] = [[0, 0], [MARGIN, 0], [0, MARGIN], [MARGIN, MARGIN]]
    for k, (before, after) in enumerate(room.tolist()):
        strip = values[k * item + EEG_WINDOW : (k + 1) * item]
        strip[: MARGIN - before] = strip[len(strip) - (MARGIN - after) :] = np.nan
    held = {"start": 0, "offset": np.arange(n) * item, "length": item}
    table = pd.DataFrame(held | {"n_missing": 0, "before": room[:, 0], "after": room[:, 1]})
    padded = _pack("windows", values, EEG_WINDOW, 10, EEG_STEP_S, table, MARGIN)
    ids = np.arange(n)
    first = kaggle.starts - recordings["offset"].to_numpy()
    sources = {
        "kaggle": SourceRows(whole, kaggle.starts, whole.room(ids, first)),
        "eeg": SourceRows(padded, padded.locate(ids, 0 * ids), padded.room(ids, 0 * ids)),
    }
    return replace(data, sources=sources)


def _pack(
    kind: Any, values: Any, window: int, n: int, step_s: float, table: pd.DataFrame, margin: int = 0
) -> Pack:
    whole = (Path(), kind, kind, {}, "", PANELS, n, window, step_s, 0, table, values, None, margin)
    return Pack(*whole)


DATA = shifting_fold()
SIZE, WIDTHS = (64, 64 + 40), (64, 20, 20)


def planned(
    process: Process | None = None, epoch: int = 0, data: FoldData = DATA, **augment: Any
) -> list[Batch]:
    training = TrainingConfig(batch_size=12, augment=AugmentConfig(**augment))
    (stage,) = training.resolved_stages()
    where = (0, 0, epoch)
    return plan_epoch(
        data, data.train, training, stage, (SIZE, WIDTHS), where, process or Process()
    )


def cut(source: str, row: int, shift_s: float) -> np.ndarray:
    """(T, P * F) of a row, cut from its own recording or strip by hand."""
    rows = DATA.sources[source]
    if source == "kaggle":
        recording = rows.pack.values[128 * row : 128 * (row + 1)]
        start = int(rows.starts[row]) - 128 * row + round(shift_s / 2)
        return recording[min(max(start, 0), 64) :][:64]
    item = rows.pack.values[100 * row : 100 * (row + 1)]
    assert rows.room is not None
    before, after = rows.room[row].tolist()
    by = min(max(round(shift_s / EEG_STEP_S), -before), after)
    return item[20 + MARGIN + by :][:20] if by else item[:20]


@pytest.mark.parametrize("kind", ["resident", "streamed"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_all_sources_of_a_row_shift_together_for_any_number_of_ranks(
    world_size: int, kind: str
) -> None:
    cutmix = CutMixConfig(probability=0.7)
    maker = open_images(DATA, InputConfig(**INPUTS), cache_bytes=10**6, kind=kind)
    plans = [
        planned(Process(rank, world_size), window_shift_s=SHIFT_S, cutmix=cutmix)
        for rank in range(world_size)
    ]
    made = [list(maker.for_training(batches)) for batches in plans]
    shifts = np.random.default_rng(seed_sequence(0, 0, 0, 0, "shift"))
    n_cut = 0
    for number, whole in enumerate(planned(cutmix=cutmix)):
        seconds = shifts.uniform(-SHIFT_S, SHIFT_S, len(whole.rows))
        windows = {}
        for source, rows in DATA.sources.items():
            panels, frequencies, times = rows.shape
            pairs = zip(whole.rows.tolist(), seconds, strict=True)
            stacked = np.stack([cut(source, row, shift) for row, shift in pairs])
            shaped = torch.from_numpy(stacked.reshape(-1, times, panels, frequencies))
            windows[source] = shaped.permute(0, 2, 3, 1)
        expected = make_image(windows, InputConfig(**INPUTS))
        if whole.plan.cutmix is not None:
            n_cut += 1
            expected = apply_cutmix(expected, whole.plan.cutmix)
        found = torch.cat([rank[number] for rank in made])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert 0 < n_cut < 4


def test_shifts_are_uniform_bounded_and_rounded_to_each_grid() -> None:
    seconds = np.concatenate(
        [batch.shifts_s for epoch in range(40) for batch in planned(epoch=epoch, window_shift_s=9)]  # type: ignore[misc]
    )
    assert 8.9 < seconds.max() < 9
    assert -9 < seconds.min() < -8.9
    assert abs(seconds.mean()) < 0.5
    assert seconds.std() == pytest.approx(9 / 3**0.5, rel=0.05)
    row = np.full(5, 3)  # room for all of them in the EEG
    eeg, kaggle = DATA.sources["eeg"], DATA.sources["kaggle"]
    moves = np.array([-0.61, -0.21, 0.0, 0.19, 1.01])
    by = eeg.shifted(row, moves) - (300 + EEG_WINDOW + MARGIN)
    assert by.tolist() == [-2, -1, -EEG_WINDOW - MARGIN, -EEG_WINDOW - MARGIN, 3]
    by = kaggle.shifted(row, np.array([-2.9, -0.9, 0.0, 1.1, 3.1])) - kaggle.starts[3]
    assert by.tolist() == [-1, 0, 0, 1, 2]


def test_windows_stay_within_their_recordings() -> None:
    rows = np.arange(len(DATA.targets))
    kaggle = DATA.sources["kaggle"]
    for shift_s, expected in ((-1e4, 128 * rows), (1e4, 128 * rows + 64)):
        assert np.array_equal(kaggle.shifted(rows, np.full(len(rows), shift_s)), expected)
        eeg = DATA.sources["eeg"].shifted(rows, np.full(len(rows), shift_s))
        for start in eeg:
            assert not np.isnan(DATA.sources["eeg"].pack.values[start : start + EEG_WINDOW]).any()


def test_shifts_do_not_change_row_order_or_cutmix() -> None:
    cutmix = CutMixConfig(probability=0.7)
    for still, moving in zip(
        planned(cutmix=cutmix), planned(cutmix=cutmix, window_shift_s=5), strict=True
    ):
        assert still.rows.tolist() == moving.rows.tolist()
        assert still.needed.tolist() == moving.needed.tolist()
        assert repr(still.plan.cutmix) == repr(moving.plan.cutmix)
        assert still.shifts_s is None
        assert moving.shifts_s is not None
        assert len(moving.shifts_s) == len(moving.needed)
    assert repr(planned(cutmix=cutmix)[0].plan.cutmix) != repr(
        planned(epoch=1, cutmix=cutmix)[0].plan.cutmix
    )


def experiment(**augment: Any) -> Experiment:
    inputs = {**INPUTS, "downsample": (2, 4), "normalisation": "global"}
    inputs["eeg"] = {**INPUTS["eeg"], "downsample": (5, 2), "normalisation": "global"}
    return example_experiment(inputs=inputs, epochs=2, augment=AugmentConfig(**augment))


def test_training_with_shifts_repeats_bit_for_bit_with_and_without_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.set_num_threads(1)
    options: dict[str, Any] = {"window_shift_s": SHIFT_S, "cutmix": CutMixConfig(probability=1.0)}
    results = []
    for budget in (0, 2**30, 2**30):
        monkeypatch.setattr("hms_ray.train.downsampled.MAX_CACHE_BYTES", budget)
        results.append(train_fold(experiment(**options), DATA, 0, Process()))
    for other in results[1:]:
        assert np.array_equal(other.probabilities, results[0].probabilities)
        assert other.normalisation == results[0].normalisation
    still = train_fold(experiment(cutmix=CutMixConfig(probability=1.0)), DATA, 0, Process())
    assert still.normalisation == results[0].normalisation
    assert not np.array_equal(still.probabilities, results[0].probabilities)


def test_scored_and_fitted_rows_are_never_shifted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved: list[int] = []
    stayed: list[int] = []
    stream = DownsampledWindows.stream

    def watched(
        self: DownsampledWindows, batches: Sequence[Any], starts: Sequence[Any] | None = None
    ) -> Iterator[torch.Tensor]:
        rows = np.concatenate(batches).tolist()
        (stayed if starts is None else moved).extend(rows)
        return stream(self, batches, starts)

    monkeypatch.setattr(DownsampledWindows, "stream", watched)
    train_fold(experiment(window_shift_s=SHIFT_S), DATA, 0, Process())
    # Two epochs of two sources; each row once for its constants, four evaluations.
    assert np.array_equal(np.sort(moved), np.sort(np.tile(DATA.train, 4)))
    expected = [*np.tile(DATA.train, 2), *np.tile(DATA.valid, 8)]
    assert sorted(stayed) == sorted(expected)


def test_shifted_windows_are_not_cached() -> None:
    rows = DATA.sources["kaggle"]
    n = len(DATA.targets)
    windows = Resident(rows.pack, CPU)
    keeping = DownsampledWindows(windows, rows.starts, (4, 4), torch.float32, n)
    starts = np.full(9, 128 * 20 + 3)
    list(keeping.stream([np.arange(9)], [starts]))
    assert keeping.n_cached == 0
    (kept,) = keeping.stream([np.arange(9)])
    (moved,) = keeping.stream([np.arange(9)], [starts])
    assert keeping.n_cached == 9
    assert torch.equal(moved, moved[:1].expand_as(moved))
    assert not torch.equal(moved, kept)


def test_stage_without_shifts_can_follow_one_with_shifts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring is then the first to fill the cache, and training adds to it."""
    torch.set_num_threads(1)
    stages = (
        StageConfig(epochs=1, augment=AugmentConfig(window_shift_s=SHIFT_S)),
        StageConfig(epochs=1, augment=AugmentConfig()),
    )
    inputs = {**INPUTS, "downsample": (2, 4), "eeg": {**INPUTS["eeg"], "downsample": (5, 2)}}
    results = []
    for budget in (0, 2**30):
        monkeypatch.setattr("hms_ray.train.downsampled.MAX_CACHE_BYTES", budget)
        staged = example_experiment(inputs=inputs, stages=stages)
        results.append(train_fold(staged, DATA, 0, Process()))
    assert np.array_equal(results[0].probabilities, results[1].probabilities)


def test_shifting_a_source_without_room_is_refused() -> None:
    rows = replace(DATA.sources["kaggle"], room=None)
    with pytest.raises(TrainingError, match="room"):
        rows.shifted(np.arange(3), np.zeros(3))


FAULT = r"input\.eeg\.margin_s must be at least the largest augment\.window_shift_s, 5 s, got 2 s"


@pytest.mark.parametrize(
    "training",
    [
        {"augment": {"window_shift_s": 5}},
        {"stages": [{}, {"augment": {"window_shift_s": 5}}, {}]},
    ],
)
def test_margin_smaller_than_the_shift_is_refused(
    training: dict[str, Any],
) -> None:
    inputs = {"views": ["panels", "eeg panels"], "eeg": {"margin_s": 2}}
    data = {"experiment": {"input": inputs, "training": training}}
    with pytest.raises(ConfigError, match=rf"^experiment: {FAULT}"):
        validate_space(data, "test")
    good = Experiment.model_validate(
        {"input": {**inputs, "eeg": {"margin_s": 5}}, "training": training}
    )
    with pytest.raises(ConfigError, match=f"^{FAULT}"):
        replace_values(good, {"input.eeg.margin_s": 2})
    # A stage without shifts, or an input without EEGs, needs none.
    replace_values(good, {"input.eeg.margin_s": 0, "input.views": ["panels", "statistics"]})
    off = {"augment": {"window_shift_s": 5}, "stages": [{"augment": {}}]}
    Experiment.model_validate({"input": inputs, "training": off})


def test_searched_shift_must_fit_the_margin() -> None:
    inputs = {"views": ["raw signals"], "raw": {"margin_s": 2}}
    path = "training.augment.window_shift_s"
    space: dict[str, Any] = {
        "experiment": {"input": inputs},
        "parameters": {path: {"values": [0, 2]}},
    }
    validate_space(space, "test")
    space["parameters"][path] = {"min": 0, "max": 3}
    with pytest.raises(
        ConfigError, match=rf"parameters\.{path} with 3.*: input\.raw\.margin_s must be"
    ):
        validate_space(space, "test")
