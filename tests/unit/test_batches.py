"""Batches of an epoch, their slices, and the windows that they are made of."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hms_ray.config.augmentation import AugmentConfig, CutMixConfig
from hms_ray.config.inputs import InputConfig
from hms_ray.config.training import TrainingConfig
from hms_ray.errors import TrainingError
from hms_ray.train.batches import Batch, plan_epoch, split_epoch
from hms_ray.train.losses import row_weights
from hms_ray.train.process import Process
from hms_ray.train.seeds import derive_seed
from hms_ray.train.windows import Resident, Streamed, open_sources
from tests.fold_data import ExamplePack, example_fold, example_pack, open_images

CPU = torch.device("cpu")
DATA = example_fold()
KAGGLE = DATA.sources["kaggle"]
SIZE = (64, 64)


def plan(
    process: Process, seed_path: tuple[int, int, int] = (0, 0, 0), **options: Any
) -> list[Batch]:
    training = TrainingConfig(batch_size=12, **options)
    (stage,) = training.resolved_stages()
    return plan_epoch(DATA, DATA.train, training, stage, (SIZE, (64,)), seed_path, process)


@given(n=st.integers(1, 300), size=st.integers(1, 64))
def test_epoch_has_every_row_once_in_nearly_equal_batches(n: int, size: int) -> None:
    batches = split_epoch(n, size, np.random.default_rng(0))
    assert len(batches) == -(-n // size)
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(n))


def test_draws_repeat_and_differ_by_epoch_stage_fold_and_seed() -> None:
    def rows(seed_path: tuple[int, int, int] = (0, 0, 0), **options: Any) -> list[int]:
        return np.concatenate([b.rows for b in plan(Process(), seed_path, **options)]).tolist()

    drawn = [rows(), rows((1, 0, 0)), rows((0, 1, 0)), rows((0, 0, 1)), rows(seed=1)]
    assert len({tuple(order) for order in drawn}) == len(drawn)
    assert all(sorted(order) == DATA.train.tolist() for order in drawn)
    assert rows() == drawn[0]
    assert (
        rows(augment=AugmentConfig(cutmix=CutMixConfig())) == drawn[0]
    )  # one draw does not disturb the other


def test_golden_seeds() -> None:
    """Any change here is a change of every stored result."""
    assert derive_seed(0, 0, 0, 0, "model") == 523812313545019102
    assert derive_seed(42, 3, 1, 5, "dropout", 1) == 5745740218764469935
    assert derive_seed(-1, 0, 0, 0, "order") == 3323474915589032716
    assert plan(Process())[0].rows[:6].tolist() == [36, 10, 25, 49, 28, 20]


@pytest.mark.parametrize("world_size", [1, 3])
def test_weights_are_divided_by_the_mean_of_the_global_batch(world_size: int) -> None:
    options: dict[str, Any] = {"loss": "kl_capped_votes", "normalise_weights": True}
    plans = [plan(Process(rank, world_size), **options) for rank in range(world_size)]
    for parts in zip(*plans, strict=True):
        rows = np.concatenate([part.rows for part in parts])
        weights = np.concatenate([part.weights for part in parts])
        raw = row_weights("kl_capped_votes", DATA.total_votes[rows])
        np.testing.assert_allclose(weights, raw / raw.mean(), rtol=1e-12)
        assert {part.n_global for part in parts} == {len(rows)}
    published = plan(Process(), loss="kl_capped_votes")[0]
    np.testing.assert_array_equal(
        published.weights, np.minimum(DATA.total_votes[published.rows], 10)
    )


def test_batch_smaller_than_the_world_size_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"per worker \(12\), got 11 rows, in stage"):
        plan(Process(0, 12))


def test_inconsistent_fold_data_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"58 rows need \(58, 6\) targets"):
        replace(DATA, targets=DATA.targets[:, :5])
    moved = replace(KAGGLE, starts=KAGGLE.starts - 1 - KAGGLE.starts[0])
    with pytest.raises(TrainingError, match=r"from 0 to 7360 of its pack of kaggle, got -1 for"):
        replace(DATA, sources={"kaggle": moved})
    with pytest.raises(TrainingError, match=r"58 windows .* eeg, got \(57,\)"):
        replace(DATA, sources={"kaggle": KAGGLE, "eeg": replace(KAGGLE, starts=KAGGLE.starts[1:])})
    with pytest.raises(TrainingError, match="needs training and validation rows, got 45 and 0"):
        replace(DATA, valid=DATA.valid[:0])
    with pytest.raises(TrainingError, match="must be disjoint, got 1 shared row"):
        replace(DATA, valid=np.append(DATA.valid, DATA.train[4]))


@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_windows_equal_slices_of_the_pack(kind: Any) -> None:
    pack = example_pack(500, window=20, n_frequencies=5)
    source = open_sources({"": pack}, CPU, kind)[""]  # type: ignore[arg-type]
    assert source.resident == (kind == "resident")
    batches = [np.array([0, 480, 7]), np.array([480]), np.array([], dtype=np.int64)]
    batches += [np.arange(n, dtype=np.int64) for n in (3, 9, 1)]
    streamed = list(source.stream(batches))
    assert len(streamed) == len(batches)
    for starts, windows in zip(batches, streamed, strict=True):
        assert windows.dtype == torch.float16
        assert windows.shape == (len(starts), 4, 5, 20)
        for start, window in zip(starts, windows, strict=True):
            expected = pack.values[start : start + 20].reshape(20, 4, 5).transpose(1, 2, 0)
            np.testing.assert_array_equal(window, expected)
    np.testing.assert_array_equal(source.windows(batches[0]), streamed[0])


def test_memory_map_is_not_copied_on_a_cpu(tmp_path: Path) -> None:
    values = example_pack(300).values
    np.save(tmp_path / "values.npy", values)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="c")
    source: Any = Resident(ExamplePack(mapped, 64, 16), CPU)  # type: ignore[arg-type]
    assert source.resident
    assert source._gather.values.data_ptr() == mapped.ctypes.data


def test_abandoned_or_failed_stream_ends_its_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = Streamed(KAGGLE.pack, CPU)
    stream = source.stream([KAGGLE.starts[:4]] * 50)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    fail: Any = lambda starts, pinned: [][starts[0]]  # noqa: E731
    monkeypatch.setattr(source, "_gather", fail)
    with pytest.raises(IndexError):
        list(source.stream([KAGGLE.starts[:4]] * 5))
    assert not [t for t in threading.enumerate() if t.name.startswith("hms-ray-windows")]


def test_constants_use_training_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    config = InputConfig(normalisation="global", downsample=(2, 2))
    values = KAGGLE.pack.values.copy()
    for start in KAGGLE.starts[DATA.valid]:
        values[start : start + 64] = np.nan
    hidden: Any = replace(KAGGLE.pack, values=values)  # type: ignore[type-var]
    blind = replace(DATA, sources={"kaggle": replace(KAGGLE, pack=hidden)})
    fitted = []
    for data in (DATA, blind):
        for batch_size in (12, 12, 45):
            maker = open_images(data, config)
            maker.fit(data.train, batch_size, Process())
            fitted.append(maker.constants["kaggle"])
    assert fitted[0] == fitted[1] == fitted[3] == fitted[4]
    assert fitted[2].mean == pytest.approx(fitted[0].mean, rel=1e-12)
    per_image = open_images(DATA, InputConfig())
    per_image.fit(DATA.train, 12, Process())
    assert per_image.constants == {}
